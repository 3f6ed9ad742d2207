"""DatasetAddress: its text."""

import pytest

from trainer.images.address import DatasetAddress, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ylecun/mnist", ("ylecun/mnist", None, None, None)),
        ("ufldl-stanford/svhn:cropped_digits", ("ufldl-stanford/svhn", "cropped_digits", None, None)),
        (f"a/b:in the wild, 中文@{COMMIT}", ("a/b", "in the wild, 中文", COMMIT, None)),
        (f"a/b@{COMMIT}", ("a/b", None, COMMIT, None)),
        (f"a/b:c@{COMMIT}?label=coarse_label", ("a/b", "c", COMMIT, "coarse_label")),
        ("a/b@refs/convert/parquet", ("a/b", None, "refs/convert/parquet", None)),
    ],
)
def test_addresses_come_back(text, expected):
    """Each part that is missing is None, and the text is the same again."""
    address = parse(text)
    assert address == DatasetAddress(*expected)
    assert str(address) == text
    assert address.is_fixed == (COMMIT in text)


@pytest.mark.parametrize("text", ["a", "./a/b", "a/b/c", "a/b?x=1", "a/b:../c", "a/b@", "a b/c", "a/b\n"])
def test_other_texts_are_no_addresses(text):
    """Such as paths, and addresses with another parameter."""
    assert parse(text) is None


@pytest.mark.parametrize("config", ["", " ", "\0", "c\n", "\ud800", "c" * 97, "*"])
def test_what_is_no_configuration(config):
    """Such as characters that no file name has everywhere."""
    assert parse(f"a/b:{config}") is None
