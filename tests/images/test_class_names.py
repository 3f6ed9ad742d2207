"""Class names, accepted and refused."""

import pytest

from trainer.errors import UserError
from trainer.images.class_names import check_class_names, have_sides


def test_accepted_names():
    """Names in any script are returned as a tuple, in order."""
    names = ["cat", "Ünïcode", "日本語", "-", "a b"]
    assert check_class_names(names) == tuple(names)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ("ab", "from 2 to 1,000"),
        (5, "from 2 to 1,000"),
        (["one"], "from 2 to 1,000"),
        ([str(number) for number in range(1001)], "from 2 to 1,000"),
        (["a", ""], "from 1 to 100"),
        (["a", " "], "from 1 to 100"),
        (["a", "b" * 101], "from 1 to 100"),
        (["a", "b\n"], "printable"),
        (["a", 1], "printable"),
        (["a", "a"], "same name"),
    ],
)
def test_refused_names(names, complaint):
    with pytest.raises(UserError, match=complaint):
        check_class_names(names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("left", "right"), True),
        (("hand_left", "hand_right", "none"), True),
        (("左手", "右手"), True),
        (tuple("0123456789"), True),
        (("0 - zero", "1 - one"), True),
        (tuple("abc"), True),
        (("cat", "dog"), False),
        (("copyright", "leftover"), False),
        (("left", "dog"), False),
        (("airplane 1", "airplane"), False),
    ],
)
def test_classes_that_a_mirror_changes(names, expected):
    """Left and right, letters and digits."""
    assert have_sides(names) is expected
