"""The time machine's handlers, without a browser: a visitor's own runs, and handcrafted requests."""

import base64
import json
import shutil
import time
from pathlib import Path

import anyio
import gradio as gr
import pytest
import torch
from gradio.utils import get_upload_folder
from labs import make_lab
from torchvision.io import write_png

from trainer.images.image_data import facts
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.lab import new_visitor
from ui.tabs import time_machine

VISITOR = new_visitor()
JOURNEY = time_machine._build_journey()


@pytest.fixture(scope="module")
def lab(tiny, tmp_path_factory):
    """A lab in which VISITOR has a run of two epochs."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    made = make_lab(checkpoints)
    (folder,) = made.new_race(VISITOR, 1)
    config = TrainConfig(epochs=2, batch_size=13, scheduler="constant")
    with run_folder.writing(folder):
        list(record(train(config, tiny), Run(config=config), folder, facts(tiny)))
    yield made
    while made.images is None and not made.failure:  # so that no thread outlives the tests
        time.sleep(0.1)


@pytest.fixture
def picture(images):
    """A picture in the folder that Gradio uploads to, as the page sends it."""
    folder = Path(get_upload_folder(), "time-machine-test")
    folder.mkdir(parents=True, exist_ok=True)
    write_png(images.test.images[0].contiguous(), str(folder / "picture.png"))
    yield {"path": str(folder / "picture.png")}
    shutil.rmtree(folder)


def key_of(lab) -> str:
    return lab.runs_of(VISITOR)[0].name


def walked(lab, visitor, name, picture) -> list:
    """All updates of a walk."""

    async def collect():
        walk = time_machine.walk(lab, JOURNEY, visitor=visitor, name=name, picture=picture, turn=[0])
        return [updates async for updates in walk]

    return anyio.run(collect)


def test_a_walk_through_ones_own_run(lab, picture):
    """Returns a frame for each epoch, with its filters as pixels and its probabilities, and the charts."""
    updates = walked(lab, VISITOR, key_of(lab), picture)[-1]
    machine, lines, learned = (updates[part] for part in (JOURNEY.machine, JOURNEY.lines, JOURNEY.accuracy))
    frames = machine["frames"]
    assert [frame["epoch"] for frame in frames] == [0, 1, 2]
    for frame in frames:
        assert len(base64.b64decode(frame["filters"])) == 32 * 5 * 5 * 3
        assert sum(row["share"] for row in frame["shares"]) == pytest.approx(1, abs=1e-3)
    assert not machine["more"]
    assert {row["epoch"] for row in lines["data"]["shares"]} == {0, 1, 2}
    assert [row["epoch"] for row in learned["data"]["epochs"]] == [0, 1, 2]


def test_the_axes_include_a_last_epoch_without_weights(lab, picture):
    """Its accuracy is still drawn, and the epochs of both charts are aligned."""
    file = lab.checkpoints / key_of(lab) / "epochs" / "epoch-0002.safetensors"
    kept = file.read_bytes()
    file.unlink()
    try:
        updates = walked(lab, VISITOR, key_of(lab), picture)[-1]
    finally:
        file.write_bytes(kept)
    machine, lines, learned = (updates[part] for part in (JOURNEY.machine, JOURNEY.lines, JOURNEY.accuracy))
    assert [frame["epoch"] for frame in machine["frames"]] == [0, 1]
    for chart in (lines, learned):
        assert '"domain": [0, 2]' in json.dumps(chart["specs"])


@pytest.mark.parametrize("visitor", [None, "f" * 32, {}, [], "../x", 3])
def test_another_visitors_run_is_refused(lab, picture, visitor):
    """Also with a forged visitor key: an error and no frames."""
    updates = walked(lab, visitor, key_of(lab), picture)[-1]
    says, machine = updates[JOURNEY.says], updates[JOURNEY.machine]
    assert "You have no such run" in says
    assert machine == {}


@pytest.mark.parametrize(
    "name", [{"a": 1}, ["x"], 3, True, "../../etc", "/etc/passwd", "\0", "x" * 100_000, "a/b/c", "a/.."]
)
def test_an_invalid_name_is_refused(lab, picture, name):
    """An error explains it; neither the disk nor the Hub is accessed."""
    updates = walked(lab, VISITOR, name, picture)[-1]
    says, machine = updates[JOURNEY.says], updates[JOURNEY.machine]
    assert "You have no such run" in says or "is not the name of a repo" in says
    assert machine == {}


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "", "\0", None, 3, {}, {"path": "/etc/passwd"}, {"path": ["x"]}, ["/"]]
)
def test_only_uploaded_files_are_read(lab, path):
    """Any other path in a handcrafted request is refused."""
    updates = walked(lab, VISITOR, key_of(lab), path)[-1]
    says, machine = updates[JOURNEY.says], updates[JOURNEY.machine]
    assert "Send a picture file." in says or "Choose a picture" in says
    assert machine == {}


def test_a_name_in_an_error_is_escaped(lab, picture):
    """A name that contains HTML is displayed as text."""
    says = walked(lab, VISITOR, "<img src=x onerror=alert(1)>", picture)[-1][JOURNEY.says]
    assert "<img" not in says
    assert "&lt;img" in says


def test_only_the_latest_walk_of_a_page_is_shown(lab, picture):
    """An earlier walk ends without changing what the later one displays."""

    async def overtaken():
        turn, first = [0], []
        walk = time_machine.walk(lab, JOURNEY, visitor=VISITOR, name=key_of(lab), picture=picture, turn=turn)
        async for updates in walk:
            first.append(updates)
            turn[0] += 1  # another walk has begun
        return first

    first = anyio.run(overtaken)
    assert len(first) == 2
    assert first[-1] == gr.skip()


def test_filters_of_zeros_are_grey_and_a_huge_weight_is_clipped():
    """Neither divides by zero."""
    from ui.tabs.time_machine import _as_pictures

    assert set(_as_pictures(torch.zeros(4, 3, 5, 5)).flatten().tolist()) == {128}
    huge = torch.zeros(4, 3, 5, 5)
    huge[0, 0, 0, 0] = 1e30
    assert _as_pictures(huge)[0, 0, 0, 0] == 255
