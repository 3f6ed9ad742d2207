"""The timeline of a published run: the same moments as its folder's, downloaded once."""

from collections.abc import Iterator

import pytest
import torch
from fake_hub import OWNER, Fault

from trainer.hub.repositories import open_timeline
from trainer.insight.timeline import Gap, Moment, of_folder, walk

ID = "owner/run"
EPOCHS = (0, 1, 2, 3)


@pytest.fixture
def picture(images):
    """A test picture that is larger than the network's input, and not square."""
    return torch.nn.functional.interpolate(images.test.images[:1].float(), (48, 64))[0].byte()


def assert_same(published: Iterator[Moment | Gap], local: Iterator[Moment | Gap]) -> None:
    """Compares the two walks number by number; `walk` itself is tested on folders."""
    found, expected = list(published), list(local)
    assert [moment.epoch for moment in found] == [moment.epoch for moment in expected] == list(EPOCHS)
    for moment, wanted in zip(found, expected, strict=True):
        assert moment.class_names == wanted.class_names
        assert moment.prediction.label == wanted.prediction.label
        assert moment.prediction.confidences == wanted.prediction.confidences
        assert torch.equal(moment.prediction.seen, wanted.prediction.seen)
        assert torch.equal(moment.filters, wanted.filters)


@pytest.mark.quick
def test_a_published_run_has_the_same_moments_and_is_downloaded_once(three_epochs, picture, hub, published):
    """A second walk, with another picture, downloads no weights."""
    assert_same(walk(open_timeline(ID), picture), walk(of_folder(three_epochs), picture))
    assert weights_fetched(hub) == len(EPOCHS)
    assert_same(walk(open_timeline(ID), picture.flip(2)), walk(of_folder(three_epochs), picture.flip(2)))
    assert weights_fetched(hub) == len(EPOCHS)


def weights_fetched(hub) -> int:
    return sum(request.startswith("GET") and "model.safetensors" in request for request in hub.requests)


def test_a_failed_download_is_one_gap(hub, published, picture):
    """It has one sentence, and the other epochs are there."""
    commit = hub.repos[ID].tags["epoch-0002"]
    hub.faults.append(Fault(method="GET", path=f"{commit}/model.safetensors", how="refuse", status=500, times=1000))
    steps = list(walk(open_timeline(ID), picture))
    assert [type(step) for step in steps] == [Moment, Moment, Gap, Moment]
    assert "500" in steps[2].reason


def test_a_private_run_needs_permission(hub, published, picture):
    """Also once its weights are in the cache."""
    hub.repos[ID].private = True
    assert len(list(walk(open_timeline(ID, token=OWNER), picture))) == len(EPOCHS)
    with pytest.raises(ValueError, match="no access to it"):
        open_timeline(ID)


def test_a_repo_without_epochs_is_refused(hub, published):
    """Without tags, and without a repo, the error is one sentence."""
    hub.repos[ID].tags = {"v1.0": hub.repos[ID].head}
    with pytest.raises(ValueError, match="has no epochs to walk through"):
        open_timeline(ID)
    with pytest.raises(ValueError, match="There is no owner/nothing"):
        open_timeline("owner/nothing")
