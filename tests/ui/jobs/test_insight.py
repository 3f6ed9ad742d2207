"""The jobs that look inside runs: they are cached, stopped and limited, and what they cannot do is one sentence."""

import math
import threading
from dataclasses import replace

import pytest

from trainer.jobs.process import Served
from trainer.jobs.work import Landscape
from trainer.settings.config import TrainConfig
from ui.jobs.insight import LandscapeJob, SharpnessJob
from ui.parts.run.inspected import elsewhere, of_folder
from ui.visitors import new_visitor

VISITOR = new_visitor()
CONFIG = TrainConfig(epochs=2, batch_size=20, optimizer="adam", lr=0.01, scheduler="constant")
SMALL = {"num_points": 3, "num_images": 10}


def trained(lab, *configs):
    """Trains a race of VISITOR; returns its runs."""
    job = lab.train(VISITOR, list(configs))
    assert job.ended.wait(120)
    return [of_folder(folder, folder.name[:4]) for folder in job.folders]


def ended(job):
    """Waits until a job has ended, and returns it."""
    assert job.ended.wait(120)
    return job


def test_a_landscape_is_computed_once(lab):
    """Of both contenders of a race; the second time it comes from the folder of the first."""
    runs = trained(lab, CONFIG, replace(CONFIG, lr=0.02))
    rows, worked = [], []
    job = ended(lab.draw_landscape(VISITOR, runs, on_row=rows.append, **SMALL))
    assert job.failure == ""
    assert len(job.found.losses) == len(rows) == 9
    assert all(map(math.isfinite, job.found.losses.values()))
    assert [[stop.epoch for stop in path] for path in job.found.paths] == [[0, 1, 2]] * 2
    lab._run = lambda work, stopping: worked.append(work) or iter(())
    again = ended(lab.draw_landscape(VISITOR, runs, **SMALL))
    assert worked == []
    assert again.found.losses == job.found.losses
    assert again.remarks == []


def test_random_directions_need_one_epoch(lab):
    """A run of a single epoch has no plane, as a sentence says, but directions around its network."""
    (run,) = trained(lab, replace(CONFIG, epochs=1, softmax=True))
    assert "three different epochs" in ended(lab.draw_landscape(VISITOR, [run], **SMALL)).failure
    job = ended(lab.draw_landscape(VISITOR, [run], is_random=True, **SMALL))
    assert job.failure == ""
    assert job.found.share is None
    assert job.found.names == (run.name,)
    assert "softmax" in job.remarks[0]


def test_what_does_not_fit_is_one_sentence(lab, pictures, hub_with_run):
    """Networks for other pictures, a bundled one without epochs, a wrong grid, and a repo without epochs."""
    (run,) = trained(lab, CONFIG)
    for chosen, options, sentence in (
        (elsewhere("quick"), {"is_random": True}, "made for other pictures"),
        (elsewhere("quick"), {}, "as weights only"),
        (run, {"num_points": 2}, "from 3 to 101 points"),
        (run, {"num_images": 0}, "1 or more"),
        (elsewhere("owner/run"), {}, "no epochs"),
        (elsewhere("owner/run"), {"is_random": True}, "made for other pictures"),
        (elsewhere("owner/none"), {}, "owner/none"),
    ):
        assert sentence in ended(lab.draw_landscape(VISITOR, [chosen], **{**SMALL, **options})).failure
    lab.images = replace(pictures, digest="other")
    assert "other pictures than those" in ended(lab.draw_landscape(VISITOR, [run], **SMALL)).remarks[0]


def test_a_landscape_stops_and_keeps_its_points(lab):
    """At its next point, or at the limit of the machine's time."""
    (run,) = trained(lab, CONFIG)
    known = threading.Event()

    def slow(work, stopping):
        assert isinstance(work, Landscape)
        for number, event in enumerate(work.run(lab.device), 1):
            if stopping.is_set():
                return
            yield event
            yield Served(seconds=number)
            if number == 5:
                known.set()
                stopping.wait(60)

    lab._run = slow
    job = lab.draw_landscape(VISITOR, [run], **SMALL)
    assert known.wait(60)
    assert job.seconds_left == pytest.approx(4)
    lab.jobs.stop(VISITOR, LandscapeJob)
    assert ended(job).share == pytest.approx(5 / 9)
    assert len(job.found.losses) == 5
    lab.limits = replace(lab.limits, seconds=2)
    limited = ended(lab.draw_landscape(VISITOR, [run], **SMALL))
    assert "too long" in limited.failure
    assert len(limited.found.losses) == 3


@pytest.mark.slow
def test_the_sharpness_of_a_race(lab):
    """One run after another; each has its own limit, and the seconds add up."""
    runs = trained(lab, CONFIG, replace(CONFIG, lr=0.02))
    parts = []

    def served(work, stopping):
        parts.append(work)
        yield from work.run(lab.device)
        yield Served(seconds=2.0)

    lab._run = served
    job = ended(lab.measure_sharpness(VISITOR, runs, num_images=10))
    assert job.failure == ""
    assert (job.share, job.seconds, len(parts)) == (1, 4.0, 2)
    assert [[row.epoch for row in run.rows] for run in job.runs] == [[0, 1, 2]] * 2
    assert [run.rows[-1].limit for run in job.runs] == pytest.approx([200, 100])
    refused = ended(lab.measure_sharpness(VISITOR, [elsewhere("quick")], num_images=10))
    assert "as weights only" in refused.failure
    assert lab.jobs.of(VISITOR, SharpnessJob) is refused
