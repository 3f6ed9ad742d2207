"""Mistakes: the figures equal those counted picture by picture, and a network that does not fit is explained."""

import html
import itertools
import json
from dataclasses import replace

import pytest
import torch
from cases import finish

from trainer.cli.main import main
from trainer.errors import UserError
from trainer.insight.mistakes import NUM_BINS, Answers, answer
from trainer.networks.model import OptimizerLabModel


def some_answers(num_classes, count=400, seed=0):
    """Random answers, somewhat better than guessing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (count,), generator=generator)
    outputs = torch.randn(count, num_classes, generator=generator)
    outputs[torch.arange(count), labels] += 1
    names = tuple(f"class {index}" for index in range(num_classes))
    return Answers(class_names=names, labels=labels, probabilities=(2 * outputs).softmax(1))


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_the_figures_are_those_counted_one_by_one(num_classes):
    """Confusion matrix, accuracy, recall, precision, bins and calibration error."""
    answers = some_answers(num_classes)
    pairs = [
        (label, max(range(num_classes), key=row.__getitem__), max(row))
        for label, row in zip(answers.labels.tolist(), answers.probabilities.tolist(), strict=True)
    ]
    fields = {}
    for index, (label, taken, confidence) in enumerate(pairs):
        fields.setdefault((label, taken), []).append((-confidence, index))
    places = itertools.product(range(num_classes), repeat=2)
    assert answers.confusion.flatten().tolist() == [len(fields.get(place, [])) for place in places]
    for place, surest in fields.items():
        assert answers.pictures_in(*place) == [index for _, index in sorted(surest)]
    assert answers.accuracy == pytest.approx(sum(t == k for t, k, _ in pairs) / len(pairs))
    for index, score in enumerate(answers.class_scores):
        of_class = [t == k for t, k, _ in pairs if t == index]
        taken_for = [t == k for t, k, _ in pairs if k == index]
        assert score.num_pictures == len(of_class)
        assert score.recall == (pytest.approx(sum(of_class) / len(of_class)) if of_class else None)
        assert score.precision == (pytest.approx(sum(taken_for) / len(taken_for)) if taken_for else None)
    error = 0.0
    for number in range(NUM_BINS):
        inside = [(t == k, p) for t, k, p in pairs if number / NUM_BINS < p <= (number + 1) / NUM_BINS]
        if inside:
            error += abs(sum(right for right, _ in inside) - sum(p for _, p in inside)) / len(pairs)
    assert answers.calibration_error == pytest.approx(error, abs=1e-6)
    assert sum(each.num_pictures for each in answers.bins) == len(pairs)


def test_a_calibrated_network_has_no_error():
    """Of four pictures that it is three quarters sure of, three are right; sure of the fourth, it is wrong there."""
    labels = torch.tensor([0, 0, 0, 1])
    sure = Answers(class_names=("a", "b"), labels=labels, probabilities=torch.tensor([[0.75, 0.25]] * 4))
    assert sure.calibration_error == pytest.approx(0)
    too_sure = replace(sure, probabilities=torch.tensor([[1.0, 0.0]] * 4))
    assert too_sure.calibration_error == pytest.approx(0.25)


def test_which_pictures_two_networks_disagree_on():
    """Those with different answers, though the other network has its classes in another order; the surest first."""
    one = some_answers(3)
    order = torch.tensor([2, 0, 1])
    same = Answers(
        class_names=tuple(one.class_names[index] for index in order),
        labels=torch.argsort(order)[one.labels],
        probabilities=one.probabilities[:, order],
    )
    assert one.differs_from(same) == []
    other = some_answers(3, seed=1)
    differing = one.differs_from(other)
    assert sorted(differing) == (one.predicted != other.predicted).nonzero().flatten().tolist()
    confidences = one.probabilities.amax(1)[differing].tolist()
    assert confidences == sorted(confidences, reverse=True)


@pytest.mark.parametrize("softmax", [False, True])
def test_answers_are_the_networks_probabilities(softmax, tiny):
    """Also of a network that ends in a softmax, and of one whose classes are in another order than the pictures'."""
    names = tiny.class_names[::-1]
    model = OptimizerLabModel(class_names=names, image_size=8, softmax=softmax).eval()
    answers = finish(answer(model, tiny))
    outputs = model(tiny.test.images).detach()
    torch.testing.assert_close(answers.probabilities, outputs if softmax else outputs.softmax(1))
    labels = [tiny.class_names[label] for label in tiny.test.labels.tolist()]
    assert [names[label] for label in answers.labels.tolist()] == labels


def test_a_network_that_does_not_fit_is_explained(tiny):
    """Other classes, pictures of another size, and weights that are too large."""
    with pytest.raises(UserError, match=r"other classes \(cat, dog\)"):
        finish(answer(OptimizerLabModel(class_names=["cat", "dog"], image_size=8).eval(), tiny))
    with pytest.raises(UserError, match="takes pictures of 32 pixels"):
        finish(answer(OptimizerLabModel(class_names=tiny.class_names, image_size=32).eval(), tiny))
    broken = OptimizerLabModel(class_names=tiny.class_names, image_size=8).eval()
    with torch.no_grad():
        broken.network.linear2.weight.fill_(3e38)
    with pytest.raises(UserError, match="not a number"):
        finish(answer(broken, tiny))


def test_the_command(small_run, tiny, tmp_path, capsys, monkeypatch):
    """Its rows add up to the test pictures; the page holds the matrix, and the name of the run as text."""
    monkeypatch.setattr("trainer.cli.commands.mistakes.images_of", lambda source: tiny)
    folder = small_run.rename(tmp_path / "a&b")
    page = tmp_path / "page.html"
    assert main(["mistakes", str(folder), "--json", "--output", str(page)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    classes = [row for row in rows if row["event"] == "class"]
    assert [row["class"] for row in classes] == list(tiny.class_names)
    assert sum(sum(row["taken_for"].values()) for row in classes) == rows[-1]["pictures"] == 20
    assert rows[-1]["accuracy"] == sum(row["taken_for"][row["class"]] for row in classes) / 20
    text = page.read_text(encoding="utf-8")
    assert html.escape(str(folder)) in text
    assert text.count("<tr>") >= 2 * (len(classes) + 1)
    assert main(["mistakes", str(folder)]) == 0
    assert "Most frequent mistakes:" in capsys.readouterr().out
    assert main(["mistakes", str(folder), "--output", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
