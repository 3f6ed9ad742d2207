"""Trainings on a borrowed GPU: the requested jobs, and the sentences for each message with which `spaces` refuses."""

import re
import threading

import gradio as gr
import httpx
import pytest
import torch
from cases import first_is_quick

from trainer.images.image_data import load_images
from trainer.jobs.slices import LONGEST_MEASUREMENT, SHORTEST_MEASUREMENT, Measurement, Slice, Timed, run_job
from trainer.jobs.work import ImageFile, Search, Timing
from trainer.learning import lr_finder
from trainer.learning.lr_finder import Trial
from trainer.runs.events import EpochEnded, Finished, GpuTime
from trainer.settings.config import TrainConfig
from ui.i18n.words import translate
from ui.jobs.zerogpu import BorrowedGpu, GpuUnavailableError

pytestmark = pytest.mark.slow  # the borrowed GPU is asked in real time
CONFIG = TrainConfig(epochs=3, batch_size=8)
QUOTA = (
    "You have exceeded your free ZeroGPU quota ({requested}s requested vs. {left}s left). "
    "Try again in 1 day, 2:03:04. Subscribe to Hugging Face PRO to get 40 min"
)
TOO_LONG = "The requested GPU duration ({requested}s) is larger than the maximum allowed"


@pytest.fixture(scope="module")
def cached(image_folder):
    """Images cached in a file, as those of the app are."""
    return load_images(str(image_folder))


class Lender:
    """Stands in for the GPU service: runs jobs in this process.

    From job number `after` on, it refuses those of more than `longest` seconds; each second counts `factor` times.
    """

    def __init__(self, message="", longest=1e9, after=0, factor=1.0):
        self.message, self.longest, self.after, self.factor = message, longest, after, factor
        self.jobs, self.refused = [], []

    def __call__(self, job):
        requested = int(job.seconds * self.factor)
        if len(self.jobs) >= self.after and requested > self.longest:
            self.refused.append(job.seconds)
            raise gr.Error(self.message.format(requested=requested, left=self.longest), print_exception=False)
        self.jobs.append(job)
        yield from run_job(job, torch.device("cpu"))


def searched(gpu, config, images):
    """The events of a learning-rate search."""
    return gpu.run(Search.of(config, images), threading.Event())


def test_the_pace_is_measured_only_once(cached):
    """The first training starts with a measurement; the next one with the same kind of batch does not."""
    lender = Lender()
    gpu = BorrowedGpu(lender)
    events = [event for _, event in gpu.race([(CONFIG, None)], cached)]
    assert [event.epoch for event in events if isinstance(event, EpochEnded)] == [0, 1, 2, 3]
    assert events[-1] == Finished(reason="completed")
    assert isinstance(lender.jobs[0], Measurement)
    assert {type(job) for job in lender.jobs[1:]} == {Slice}
    count = len(lender.jobs)
    list(gpu.race([(CONFIG.changed({"lr": 1e-3}), None)], cached))
    assert isinstance(lender.jobs[count], Slice)
    count = len(lender.jobs)
    list(gpu.race([(CONFIG.changed({"pretrained": "frozen"}), None)], cached))
    assert isinstance(lender.jobs[count], Measurement), "a step without the convolutions' gradients takes less time"


def test_used_seconds_grow_and_remaining_seconds_shrink(cached):
    """The seconds that remain are 0 at the end."""
    times = [event for _, event in BorrowedGpu(Lender()).race([(CONFIG, None)], cached) if isinstance(event, GpuTime)]
    used = [time.used_seconds for time in times]
    assert used == sorted(used)
    assert used[-1] > 0
    assert times[0].left_seconds > 0
    assert times[-1].left_seconds == 0


def test_a_refused_job_is_requested_again_with_less_time(cached):
    """With the time that is left if the refusal names it, else with half of the time."""
    for message, refused in ((QUOTA, [15]), (TOO_LONG, [15])):
        lender = Lender(message, longest=9 if message is QUOTA else 8)
        assert SHORTEST_MEASUREMENT <= 8 < LONGEST_MEASUREMENT
        events = []
        try:
            events = [event for _, event in BorrowedGpu(lender).race([(CONFIG, None)], cached)]
        except GpuUnavailableError:
            assert message is TOO_LONG, "half of 15 seconds is too short to measure in"
        assert lender.refused[:1] == refused
        assert bool(events) == (message is QUOTA)


def test_seconds_may_count_more_than_once(cached):
    """A second on a larger GPU takes 1.5 s of the quota: the remaining quota is converted to seconds of the job."""
    lender = Lender(QUOTA, longest=20, factor=1.5)
    events = [event for _, event in BorrowedGpu(lender).race([(CONFIG, None)], cached)]
    assert events[-1] == Finished(reason="completed")
    assert lender.refused == [15]
    assert lender.jobs[0].seconds == 13


def test_a_refused_job_is_not_requested_again_unchanged(cached):
    """Even if the refusal says that enough time is left."""

    def refuse(job):
        requested.append(job.seconds)
        raise gr.Error(QUOTA.format(requested=job.seconds, left=100), print_exception=False)
        yield

    requested = []
    with pytest.raises(GpuUnavailableError, match="used up"):
        list(BorrowedGpu(refuse).race([(CONFIG, None)], cached))
    assert requested == [15]


@pytest.mark.slow
def test_a_wrong_pace_is_measured_again(cached):
    """After a slice was cut off."""
    gpu = BorrowedGpu(Lender())
    list(gpu.race([(CONFIG, None)], cached))
    gpu._on_gpu = Breaking("GPU task aborted")
    list(gpu.race([(CONFIG, None)], cached))
    gpu._on_gpu = lender = Lender()
    list(gpu.race([(CONFIG, None)], cached))
    assert isinstance(lender.jobs[0], Measurement)


@pytest.mark.parametrize(
    ("message", "sentence"),
    first_is_quick(
        [
            (QUOTA, r"used up: 0 s are left, \d+ s are needed, more in 1 day, 2:03:04\."),
            (TOO_LONG, r"for \d+ s at a time, longer than is allowed"),
            ("Space app has reached its GPU limit. Try re-running outside of examples", "signed in to Hugging Face"),
            ("You have exceeded your ZeroGPU runs limit. ", "used up"),
            ("No GPU was available after 60s. Retry later", "No GPU is free"),
            ("GPU task aborted", "taken back"),
            ("ZeroDivisionError", "see the app's log"),
        ]
    ),
)
def test_a_refusal_is_explained(cached, message, sentence):
    """It raises an error if nothing has been trained yet, else it is the run's advice; both can be translated."""
    lender = Lender(message, longest=0)
    with pytest.raises(GpuUnavailableError, match=sentence) as refusal:
        list(BorrowedGpu(lender).race([(CONFIG, None)], cached))
    with pytest.raises(GpuUnavailableError, match=sentence):
        list(searched(BorrowedGpu(lender), CONFIG, cached))
    assert translate(str(refusal.value), "zh") != str(refusal.value)

    gpu = BorrowedGpu(Lender())
    list(gpu.race([(CONFIG, None)], cached))
    gpu._on_gpu = Breaking(message)
    *_, (_, last) = gpu.race([(CONFIG, None), (CONFIG.changed({"lr": 1e-3}), None)], cached)
    assert last.reason == "out_of_time"
    assert "press Resume" in last.advice
    assert translate(last.advice, "zh").count("GPU") >= 1
    assert not re.search("[a-z]+ [a-z]+ [a-z]+", translate(last.advice, "zh")), "some of it is still English"


class Breaking(Lender):
    """Fails after the first epoch, as if the GPU was taken back."""

    def __call__(self, job):
        for event in run_job(job, torch.device("cpu")):
            yield event
            if isinstance(event, tuple) and isinstance(event[1], EpochEnded) and event[1].epoch == 1:
                raise gr.Error(self.message.format(requested=job.seconds, left=0), print_exception=False)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("ZeroGPU API /schedule error: 500"), "does not answer"),
        (httpx.ConnectError("refused"), "does not answer"),
        (BrokenPipeError(32, "Broken pipe"), "taken back"),  # the process was killed between two slices
        (TypeError("'NoneType' object cannot be interpreted as an integer"), "taken back"),  # while it was sent one
    ],
)
def test_a_failing_gpu_service_is_reported(cached, error, sentence, caplog):
    """Its error is also logged."""

    def fail(job):
        raise error
        yield

    with pytest.raises(GpuUnavailableError, match=sentence):
        list(BorrowedGpu(fail).race([(CONFIG, None)], cached))
    assert str(error) in caplog.text


def test_invalid_settings_are_reported_early(cached):
    """Before a GPU is requested, except for settings that the device does not support."""
    lender = Lender()
    with pytest.raises(ValueError, match="batch_size"):
        BorrowedGpu(lender).race([(CONFIG.changed({"batch_size": 1000}), None)], cached)
    with pytest.raises(ValueError, match="batch_size"):
        list(searched(BorrowedGpu(lender), CONFIG.changed({"batch_size": 1000}), cached))
    with pytest.raises(ValueError, match="float16"):
        list(BorrowedGpu(lender).race([(CONFIG.changed({"precision": "float16"}), None)], cached))


@pytest.mark.slow
def test_the_lr_finder_measures_a_wrong_pace_again(cached, monkeypatch):
    """After a search was cut off; the new measurement fits into the remaining quota."""
    gpu = BorrowedGpu(Lender())
    with monkeypatch.context() as patch:
        patch.setattr(lr_finder, "_MOST_STEPS", 20)
        list(searched(gpu, CONFIG, cached))
    gpu._on_gpu = Lender("GPU task aborted", longest=0)
    with pytest.raises(GpuUnavailableError, match="taken back"):
        list(searched(gpu, CONFIG, cached))
    gpu._on_gpu = lender = Lender(QUOTA, longest=9)
    with pytest.raises(GpuUnavailableError, match="used up"):
        list(searched(gpu, CONFIG, cached))
    assert lender.refused[0] == LONGEST_MEASUREMENT
    assert [type(job) for job in lender.jobs] == [Measurement]
    assert lender.jobs[0].seconds == 9


def test_a_search_is_one_job_after_the_measurement(cached):
    """It can be closed early."""
    lender = Lender()
    events = searched(BorrowedGpu(lender), CONFIG, cached)
    assert isinstance(next(events), Trial)
    events.close()
    assert [type(job) for job in lender.jobs] == [Measurement, Timed]


def test_a_timing_costs_no_quota(cached):
    """It gives the pace that a training has measured, and nothing before."""
    lender = Lender()
    gpu = BorrowedGpu(lender)
    timing = Timing(images=ImageFile.of(cached), config=CONFIG)
    assert list(gpu.run(timing, threading.Event())) == []
    assert lender.jobs == []
    list(gpu.race([(CONFIG, None)], cached))
    count = len(lender.jobs)
    (pace,) = gpu.run(timing, threading.Event())
    assert pace.batch_seconds > 0
    assert len(lender.jobs) == count
