"""Chooses the device to compute on, sets the process up for it, and explains its out-of-memory errors."""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from trainer.errors import UserError

_OUT_OF_MEMORY = (
    "MPS backend out of memory", "can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED",
)  # fmt: skip

DEVICES = ("auto", "cpu", "cuda", "mps")

# Parameters of glibc's mallopt(3), and a size above any tensor of a batch.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST_KEPT_BYTES = 2**30


def choose_device(name: str | None = None, available: Mapping[str, bool] | None = None) -> torch.device:
    """Returns the device that `name`, one of DEVICES, stands for; `auto` is the first available of cuda, mps and cpu.

    `name` None stands for the value of OPTIMIZER_LAB_DEVICE, or `auto` if it is not set; `available` None stands for
    what this machine has. Raises UserError for an unknown name, or if there is no such device.
    """
    name = name or os.environ.get("OPTIMIZER_LAB_DEVICE") or "auto"
    available = available or {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name not in DEVICES:
        raise UserError(
            "The device must be one of {devices}, not {name}.", devices=", ".join(DEVICES), name=f"{name[:40]!r}"
        )
    if name == "auto":
        name = next(device for device, is_available in available.items() if is_available)
    if not available[name]:
        raise UserError(
            "There is no {name} device here that PyTorch can use; cpu always works.",
            name=name,
        )
    return torch.device(name)


def choose_devices() -> list[torch.device]:
    """Returns the devices to train on: all CUDA devices, or the one that `choose_device` chooses."""
    device = choose_device()
    if device.type == "cuda":
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [device]


def allow_tf32(device: torch.device) -> None:
    """Lets this process compute float32 convolutions and matrix products in TF32 on an NVIDIA GPU.

    TF32 is faster, but has only 10 bits of mantissa. torch uses it by default for convolutions, but not for matrix
    products. Does nothing for any other device.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True


def keep_freed_memory() -> None:
    """Lets this process reuse the memory of freed tensors, instead of returning it to the system after each batch.

    With glibc's defaults the system has to map and clear it again for the next batch, which takes a fifth of an epoch
    on a CPU. Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MOST_KEPT_BYTES)


def set_up_process(device: torch.device) -> None:
    """Sets this process up to train on a device: see `allow_tf32` and `keep_freed_memory`."""
    allow_tf32(device)
    keep_freed_memory()


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turns an out-of-memory error raised inside into a UserError that says which settings need less memory."""
    try:
        yield
    except RuntimeError as error:
        # CUDA usually raises torch.OutOfMemoryError; the others are RuntimeErrors that differ in their message only.
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        raise UserError(
            "The device ran out of memory. A smaller batch_size needs less, and so do fewer pictures (num_images), "
            "a smaller model, or fewer settings in a race."
        ) from error
