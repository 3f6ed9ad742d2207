"""layers.json: it comes back as it was, a resumed run has it too, and a damaged one is explained."""

import json

import pytest

from trainer.errors import UserError
from trainer.learning.checkpoint import continued
from trainer.runs.layers import FIGURES, LAYERS_FILE, as_file, parse_layers, read_layers
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=5, batch_size=4, scheduler="constant")


def known(figures):
    """The figures with -1 in place of None, which cannot be compared approximately."""
    return [-1 if figure is None else figure for figure in figures]


def test_what_was_measured_comes_back(tiny, trained):
    """Each figure of a run is in its folder, to five digits."""
    folder, run = trained(CONFIG, tiny)
    read = read_layers(folder)
    assert [each.step for each in read] == [1, 2, 4, 8, 16, 32]
    assert [each.epoch for each in read] == [1, 1, 1, 2, 3, 5]
    assert read[0].layers == ("conv1", "conv2", "conv3", "linear1", "linear2")
    assert read[0].inactive[-1] is None
    for one, other in zip(read, run.layers, strict=True):
        assert one.epochs_passed == pytest.approx(other.step / 7, rel=1e-4)
        for name in FIGURES:
            assert known(getattr(one, name)) == pytest.approx(known(getattr(other, name)), rel=1e-4)
    assert as_file(read) == (folder / LAYERS_FILE).read_bytes()


def test_a_resumed_run_has_the_same_file(tiny, trained, tmp_path):
    """After a stop in the third epoch, bit for bit the file of a run that was not stopped."""
    whole, _ = trained(CONFIG, tiny)
    part, _ = trained(CONFIG, tiny, folder=tmp_path / "part", until=2)
    assert (part / LAYERS_FILE).read_bytes() != (whole / LAYERS_FILE).read_bytes()
    checkpoint = continued(read_checkpoint(part), epochs=None, changes={})
    trained(checkpoint.config, tiny, folder=part, resume=checkpoint)
    assert (part / LAYERS_FILE).read_bytes() == (whole / LAYERS_FILE).read_bytes()


def test_a_diverged_run_keeps_what_it_measured(tiny, trained):
    """Also that of the epoch in which it diverged; figures that are not finite are missing."""
    folder, run = trained(CONFIG.changed({"lr": 1e6}), tiny)
    assert run.status == "diverged"
    measured = read_layers(folder)
    assert measured
    assert measured[-1].epoch > run.epoch
    assert read_checkpoint(folder).layers == ()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"layers": 3},
        {"layers": ["x" * 101] * 5},
        {"layers": ["conv1"]},
        {"samples": [{}]},
        {"samples": [3]},
        {"samples": {}},
    ],
    ids=str,
)
def test_a_damaged_file_is_explained(change, tiny, trained):
    folder, _ = trained(CONFIG.changed({"epochs": 1}), tiny)
    content = json.loads((folder / LAYERS_FILE).read_text())
    with pytest.raises(UserError, match=r"layers\.json is damaged"):
        parse_layers(json.dumps({**content, **change}).encode())
    for value in (-1, "1", float("inf"), True):
        content["samples"][0]["grad_norm"][0] = value
        with pytest.raises(UserError, match=r"layers\.json is damaged"):
            parse_layers(json.dumps(content).encode())
