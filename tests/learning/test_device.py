"""The choice of a device, TF32, and the errors for unknown or missing devices and too little memory."""

import platform
import subprocess
import sys

import pytest
import torch

from trainer.learning import learner
from trainer.learning.device import DEVICES, allow_tf32, choose_device, explain_out_of_memory
from trainer.learning.loop import train
from trainer.learning.race import race
from trainer.settings.config import TrainConfig


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this a machine with or without a CUDA or an Apple GPU."""

    def make(*, cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    ("available", "chosen"),
    [({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_is_the_fastest_device(available, chosen, machine, monkeypatch):
    """Also without an argument and an environment variable."""
    machine(**available)
    assert choose_device("auto").type == chosen
    monkeypatch.delenv("OPTIMIZER_LAB_DEVICE")
    assert choose_device().type == chosen
    monkeypatch.setenv("OPTIMIZER_LAB_DEVICE", "")
    assert choose_device(None).type == chosen


def test_the_argument_overrides_the_environment(machine, monkeypatch):
    """The order is --device, OPTIMIZER_LAB_DEVICE, auto."""
    machine(cuda=True)
    monkeypatch.setenv("OPTIMIZER_LAB_DEVICE", "cpu")
    assert choose_device().type == "cpu"
    assert choose_device("cuda").type == "cuda"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_missing_device(name, machine):
    """Is refused with a sentence, not silently replaced by another one."""
    machine()
    with pytest.raises(ValueError, match=f"no {name} device .*cpu always works"):
        choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:1", "tpu" * 50])
def test_an_unknown_device(name, monkeypatch):
    """As an argument or in the environment: the sentence lists the possible names."""
    with pytest.raises(ValueError, match=", ".join(DEVICES)):
        choose_device(name)
    monkeypatch.setenv("OPTIMIZER_LAB_DEVICE", name)
    with pytest.raises(ValueError, match=", ".join(DEVICES)):
        choose_device()


@pytest.fixture
def tf32():
    """A function that returns whether TF32 is allowed for matrices and convolutions; the test starts with neither."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_a_device_is_chosen_without_allowing_tf32(machine, tf32):
    """To choose a device changes nothing in the process."""
    machine(cuda=True, mps=True)
    for name in ("auto", *DEVICES):
        choose_device(name)
    assert tf32() == (False, False)


def test_tf32_is_allowed_on_an_nvidia_gpu_only(tf32):
    """For matrices and convolutions; another device leaves the process unchanged."""
    for name in ("cpu", "mps"):
        allow_tf32(torch.device(name))
        assert tf32() == (False, False)
    allow_tf32(torch.device("cuda:0"))
    assert tf32() == (True, True)


_BATCHES = """
import resource, sys, torch
from trainer.learning.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for number in range(30):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set up")
def test_freed_memory_is_used_again():
    """Twenty tensors of 40 MB, one after the other: by default the system maps each one's memory anew, page by page."""
    faults = {
        name: int(subprocess.run([sys.executable, "-c", _BATCHES, name], capture_output=True, check=True).stdout)
        for name in ("return", "keep")
    }
    assert faults["return"] > 10 * faults["keep"], faults


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_out_of_memory_says_what_to_lower(error, tiny, monkeypatch):
    """Whether the network does not fit or a batch in the middle of an epoch, alone or in a race."""
    config = TrainConfig(epochs=2, batch_size=8)

    def fail(*args, **kwargs):
        raise error

    events = race([(config, None)], tiny)
    next(events)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", fail)
    with pytest.raises(ValueError, match=r"out of memory\. A smaller batch_size"):
        list(events)
    monkeypatch.setattr(learner.OptimizerLabModel, "to", fail)
    for begins in (lambda: train(config, tiny), lambda: race([(config, None)], tiny)):
        with pytest.raises(ValueError, match=r"out of memory\. A smaller batch_size"):
            begins()


def test_out_of_memory_in_the_first_evaluation(tiny, monkeypatch):
    """The untrained network's evaluation is the first computation."""

    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    events = train(TrainConfig(epochs=2, batch_size=8, seed=4321), tiny)  # a network that no other test has evaluated
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", fail)
    with pytest.raises(ValueError, match=r"out of memory\. A smaller batch_size"):
        next(events)


def test_other_errors_are_left_alone():
    """Other errors are bugs, and must not be reported as a lack of memory."""
    with pytest.raises(RuntimeError, match="shape"), explain_out_of_memory():
        raise RuntimeError("shape mismatch")
