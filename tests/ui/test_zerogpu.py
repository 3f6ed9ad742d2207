"""A GPU that is lent by the second: what is asked for, and what is said when it is refused, in `spaces`' own words."""

import gradio as gr
import httpx
import pytest
import torch

from trainer.images.image_data import load_images
from trainer.jobs.slices import LONGEST_MEASUREMENT, SHORTEST_MEASUREMENT, Measurement, Search, Slice, run_job
from trainer.learning import lr_finder
from trainer.learning.lr_finder import Trial
from trainer.runs.events import EpochEnded, Finished, GpuTime
from trainer.settings.config import TrainConfig
from ui.i18n.words import translate
from ui.zerogpu import BorrowedGpu, GpuUnavailableError

CONFIG = TrainConfig(epochs=3, batch_size=8)
QUOTA = (
    "You have exceeded your free ZeroGPU quota ({asked}s requested vs. {left}s left). "
    "Try again in 1 day, 2:03:04. Subscribe to Hugging Face PRO to get 40 min"
)
TOO_LONG = "The requested GPU duration ({asked}s) is larger than the maximum allowed"


@pytest.fixture(scope="module")
def kept(image_folder):
    """Images that are kept in a file, as the app's are."""
    return load_images(str(image_folder))


class Lender:
    """Does the work in this process; refuses, from the piece numbered `after` on, what is above `longest` seconds, of
    which each counts `factor` times."""

    def __init__(self, message="", longest=1e9, after=0, factor=1.0):
        self.message, self.longest, self.after, self.factor = message, longest, after, factor
        self.jobs, self.refused = [], []

    def __call__(self, job):
        asked = int(job.seconds * self.factor)
        if len(self.jobs) >= self.after and asked > self.longest:
            self.refused.append(job.seconds)
            raise gr.Error(self.message.format(asked=asked, left=self.longest), print_exception=False)
        self.jobs.append(job)
        yield from run_job(job, torch.device("cpu"))


def test_measured_once_then_trained(kept):
    """A measurement, then a slice; the next training of the same kind of batch needs no measurement."""
    lender = Lender()
    gpu = BorrowedGpu(lender)
    events = [event for _, event in gpu.race([(CONFIG, None)], kept)]
    assert [event.epoch for event in events if isinstance(event, EpochEnded)] == [0, 1, 2, 3]
    assert events[-1] == Finished(reason="completed")
    assert isinstance(lender.jobs[0], Measurement)
    assert {type(job) for job in lender.jobs[1:]} == {Slice}
    count = len(lender.jobs)
    list(gpu.race([(CONFIG.changed({"lr": 1e-3}), None)], kept))
    assert isinstance(lender.jobs[count], Slice)


def test_the_seconds_used_grow_and_those_to_come_shrink(kept):
    """From nothing used to nothing to come."""
    times = [event for _, event in BorrowedGpu(Lender()).race([(CONFIG, None)], kept) if isinstance(event, GpuTime)]
    used = [time.used_seconds for time in times]
    assert used == sorted(used)
    assert used[-1] > 0
    assert times[0].left_seconds > 0
    assert times[-1].left_seconds == 0


def test_a_shorter_slice_is_asked_for_where_that_is_what_is_left(kept):
    """Told how much is left, the app asks for no more; where it has to guess, for half."""
    for message, refused in ((QUOTA, [15]), (TOO_LONG, [15])):
        lender = Lender(message, longest=9 if message is QUOTA else 8)
        assert SHORTEST_MEASUREMENT <= 8 < LONGEST_MEASUREMENT
        events = []
        try:
            events = [event for _, event in BorrowedGpu(lender).race([(CONFIG, None)], kept)]
        except GpuUnavailableError:
            assert message is TOO_LONG, "half of 15 seconds is too short to measure in"
        assert lender.refused[:1] == refused
        assert bool(events) == (message is QUOTA)


def test_seconds_that_count_for_more_are_asked_for_once_more(kept):
    """A larger GPU's second takes one and a half of the quota: what is left is asked for in our seconds."""
    lender = Lender(QUOTA, longest=20, factor=1.5)
    events = [event for _, event in BorrowedGpu(lender).race([(CONFIG, None)], kept)]
    assert events[-1] == Finished(reason="completed")
    assert lender.refused == [15]
    assert lender.jobs[0].seconds == 13


def test_what_would_be_refused_again_is_not_asked_for_again(kept):
    """Whatever the refusal says is left."""

    def refuse(job):
        asked.append(job.seconds)
        raise gr.Error(QUOTA.format(asked=job.seconds, left=100), print_exception=False)
        yield

    asked = []
    with pytest.raises(GpuUnavailableError, match="used up"):
        list(BorrowedGpu(refuse).race([(CONFIG, None)], kept))
    assert asked == [15]


def test_a_pace_that_did_not_do_is_measured_again(kept):
    """Where a slice was cut off, or was too long to be lent."""
    gpu = BorrowedGpu(Lender())
    list(gpu.race([(CONFIG, None)], kept))
    gpu._on_gpu = Breaking("GPU task aborted")
    list(gpu.race([(CONFIG, None)], kept))
    gpu._on_gpu = lender = Lender()
    list(gpu.race([(CONFIG, None)], kept))
    assert isinstance(lender.jobs[0], Measurement)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (QUOTA, r"used up: 0 s are left, \d+ s are needed, more in 1 day, 2:03:04\."),
        (TOO_LONG, r"for \d+ s at a time, longer than it is lent"),
        ("Space app has reached its GPU limit. Try re-running outside of examples", "signed in to Hugging Face"),
        ("You have exceeded your ZeroGPU runs limit. ", "used up"),
        ("No GPU was available after 60s. Retry later", "No GPU is free"),
        ("GPU task aborted", "taken back"),
        ("ZeroDivisionError", "the app's log says more"),
    ],
)
def test_what_is_refused_is_told(kept, message, sentence):
    """Before anything was trained as a mistake is, in both languages; after that as the run's advice."""
    lender = Lender(message, longest=0)
    with pytest.raises(GpuUnavailableError, match=sentence) as refusal:
        list(BorrowedGpu(lender).race([(CONFIG, None)], kept))
    with pytest.raises(GpuUnavailableError, match=sentence):
        list(BorrowedGpu(lender).find_lr(CONFIG, kept))
    assert translate(str(refusal.value), "zh") != str(refusal.value)

    gpu = BorrowedGpu(Lender())
    list(gpu.race([(CONFIG, None)], kept))
    gpu._on_gpu = Breaking(message)
    *_, (_, last) = gpu.race([(CONFIG, None), (CONFIG.changed({"lr": 1e-3}), None)], kept)
    assert last.reason == "out_of_time"
    assert "press Resume" in last.advice
    assert translate(last.advice, "zh").count("GPU") >= 1
    assert "waits" not in translate(last.advice, "zh")


class Breaking(Lender):
    """Refuses in the middle: after the first epoch, as where a worker is taken away."""

    def __call__(self, job):
        for fact in run_job(job, torch.device("cpu")):
            yield fact
            if isinstance(fact, tuple) and isinstance(fact[1], EpochEnded) and fact[1].epoch == 1:
                raise gr.Error(self.message.format(asked=job.seconds, left=0), print_exception=False)


@pytest.mark.parametrize("error", [RuntimeError("ZeroGPU API /schedule error: 500"), httpx.ConnectError("refused")])
def test_a_scheduler_that_does_not_answer_is_told(kept, error, caplog):
    """And logged."""

    def fail(job):
        raise error
        yield

    with pytest.raises(GpuUnavailableError, match="does not answer"):
        list(BorrowedGpu(fail).race([(CONFIG, None)], kept))
    assert str(error) in caplog.text


def test_mistakes_are_told_at_once(kept):
    """Before the GPU is asked for, where the images alone tell; what only the device knows, as soon as it is there."""
    lender = Lender()
    with pytest.raises(ValueError, match="batch_size"):
        BorrowedGpu(lender).race([(CONFIG.changed({"batch_size": 1000}), None)], kept)
    with pytest.raises(ValueError, match="batch_size"):
        BorrowedGpu(lender).find_lr(CONFIG.changed({"batch_size": 1000}), kept)
    with pytest.raises(ValueError, match="float16"):
        list(BorrowedGpu(lender).race([(CONFIG.changed({"precision": "float16"}), None)], kept))


def test_the_lr_finder_measures_again_what_did_not_do(kept, monkeypatch):
    """Where the search was cut off, the pace is not kept; and it measures in what is left of the quota."""
    gpu = BorrowedGpu(Lender())
    with monkeypatch.context() as patch:
        patch.setattr(lr_finder, "_MOST_STEPS", 20)
        list(gpu.find_lr(CONFIG, kept))
    gpu._on_gpu = Lender("GPU task aborted", longest=0)
    with pytest.raises(GpuUnavailableError, match="taken back"):
        list(gpu.find_lr(CONFIG, kept))
    gpu._on_gpu = lender = Lender(QUOTA, longest=9)
    with pytest.raises(GpuUnavailableError, match="used up"):
        list(gpu.find_lr(CONFIG, kept))
    assert lender.refused[0] == LONGEST_MEASUREMENT
    assert [type(job) for job in lender.jobs] == [Measurement]
    assert lender.jobs[0].seconds == 9


def test_the_lr_finder_is_one_piece(kept):
    """A measurement, then the search, which can be left."""
    lender = Lender()
    facts = BorrowedGpu(lender).find_lr(CONFIG, kept)
    assert isinstance(next(facts), Trial)
    facts.close()
    assert [type(job) for job in lender.jobs] == [Measurement, Search]
