"""The walk through a run's epochs: the same numbers as each epoch's weights give, and gaps for damaged epochs."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer import OptimizerLabModel, classify
from trainer.errors import UserError
from trainer.insight import timeline
from trainer.insight.timeline import Gap, Moment, Timeline, of_folder, walk
from trainer.runs import run_folder
from trainer.runs.reader import read_run
from trainer.settings.config import TrainConfig

EPOCHS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def trained_once(record_once) -> Path:
    """A run of three epochs; do not change it."""
    return record_once(TrainConfig(epochs=3, batch_size=13, optimizer="adam", scheduler="constant"))


@pytest.fixture
def picture(images):
    """A test picture that is larger than the network's, and not square."""
    return torch.nn.functional.interpolate(images.test.images[:1].float(), (48, 64))[0].byte()


def epoch_file(folder, epoch) -> Path:
    return folder / "epochs" / f"epoch-{epoch:04d}.safetensors"


def model_of_epoch(folder, epoch) -> OptimizerLabModel:
    """Returns an epoch's network, from config.json and that epoch's file alone."""
    model = OptimizerLabModel.from_pretrained(folder)
    model.load_state_dict(load_file(epoch_file(folder, epoch)))
    return model


def assert_same(moments, folder, picture):
    """Checks that each moment has the predictions of that epoch's own weights, and that no two epochs agree."""
    assert [moment.epoch for moment in moments] == list(EPOCHS)
    for moment in moments:
        expected = classify(model_of_epoch(folder, moment.epoch), picture)
        assert moment.prediction.label == expected.label
        assert moment.prediction.confidences == expected.confidences
        assert torch.equal(moment.prediction.seen, expected.seen)
        assert torch.equal(moment.filters, load_file(epoch_file(folder, moment.epoch))["network.conv1.weight"])
    answers = [tuple(moment.prediction.confidences[name] for name in expected.confidences) for moment in moments]
    assert len(set(answers)) == len(EPOCHS)
    assert not torch.equal(moments[0].filters, moments[-1].filters)


def test_each_epoch_is_classified_with_its_own_weights(folder, picture):
    """All are opened in one network, which must not change earlier moments."""
    assert_same(list(walk(of_folder(folder), picture)), folder, picture)


def test_a_timeline_has_the_history(folder):
    """The test accuracies are those of the run's folder."""
    walked = of_folder(folder)
    assert walked.epochs == EPOCHS
    assert [row.test_accuracy for row in walked.run.history] == [row.test_accuracy for row in read_run(folder).history]


def damage(path):
    path.write_bytes(path.read_bytes()[:-100])


def grow(path):
    save_file({name: tensor * 1e38 for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(damage, "damaged"), (Path.unlink, "missing"), (grow, "not a number|not finite")],
)
def test_a_damaged_epoch_is_a_gap(folder, picture, spoil, reason):
    """It has one sentence; the other epochs are unchanged."""
    walked = of_folder(folder)
    spoil(epoch_file(folder, 1))
    moments = list(walk(walked, picture))
    assert [type(moment) for moment in moments] == [Moment, Gap, Moment, Moment]
    with pytest.raises(ValueError, match=reason):
        raise UserError(moments[1].reason)
    assert moments[2].prediction.confidences == classify(model_of_epoch(folder, 2), picture).confidences


def test_only_saved_epochs_of_the_history_are_listed(folder):
    """Missing files, other files and epochs after the last one are not listed."""
    epoch_file(folder, 2).unlink()
    shutil.copy(epoch_file(folder, 3), epoch_file(folder, 9))
    for name in ("epoch-3.safetensors", "epoch-..-1.safetensors", "epoch-0005.bin", "epoch-٣٣٣٣.safetensors"):
        (folder / "epochs" / name).touch()
    assert of_folder(folder).epochs == (0, 1, 3)


def test_a_run_deleted_during_the_walk_leaves_gaps(folder, picture):
    """Moments from before stay."""
    steps = walk(of_folder(folder), picture)
    assert isinstance(next(steps), Moment)
    run_folder.delete(folder)
    assert [type(step) for step in steps] == [Gap, Gap, Gap]


def test_a_folder_without_a_run_or_without_epochs_is_refused(folder, tmp_path):
    """Each has one sentence."""
    with pytest.raises(ValueError, match="no such run"):
        of_folder(tmp_path / "nothing")
    shutil.rmtree(folder / "epochs")
    with pytest.raises(ValueError, match="no saved epochs"):
        of_folder(folder)


def test_a_long_run_has_evenly_spaced_epochs(folder, monkeypatch):
    """The first and the last are among them."""
    monkeypatch.setattr(timeline, "MAX_EPOCHS", 3)
    assert of_folder(folder).epochs == (0, 1, 3)


def test_an_epoch_with_other_classes_is_a_gap(folder, tiny, picture):
    """Its predictions could not be compared. A network of another size gets the picture in that size."""
    config = OptimizerLabModel.from_pretrained(folder).config
    other = OptimizerLabModel(**{**config, "class_names": ["yes", "no"]}).eval()
    larger = OptimizerLabModel(**{**config, "image_size": 16}).eval()
    models = dict(enumerate([model_of_epoch(folder, 0), other, larger]))
    walked = Timeline(run=read_run(folder), epochs=(0, 1, 2), open=models.get)
    first, gap, last = walk(walked, picture)
    assert isinstance(first, Moment)
    assert "other classes" in gap.reason
    assert last.prediction.confidences == classify(larger, picture).confidences


def test_the_time_for_gaps_is_limited(folder, picture, monkeypatch):
    """If each epoch fails slowly, the remaining ones are gaps without being opened."""
    monkeypatch.setattr(timeline, "MAX_SECONDS_ON_GAPS", 0.0)
    opened = []

    def fail(epoch):
        opened.append(epoch)
        raise UserError("The Hub cannot be reached.")

    walked = Timeline(run=read_run(folder), epochs=EPOCHS, open=fail)
    assert list(walk(walked, picture)) == [Gap(epoch=epoch, reason="The Hub cannot be reached.") for epoch in EPOCHS]
    assert opened == [0]
