"""Chooses the device to compute on, and explains its out-of-memory errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.errors import UserError

_OUT_OF_MEMORY = (
    "MPS backend out of memory", "can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED",
)  # fmt: skip

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str | None = None) -> torch.device:
    """Returns the device that `name`, one of DEVICES, stands for; `auto` is the first available of cuda, mps and cpu.

    `name` None stands for the value of OPTIMIZER_LAB_DEVICE, or `auto` if it is not set. Raises UserError for an
    unknown name, or if this machine has no such device.
    """
    name = name or os.environ.get("OPTIMIZER_LAB_DEVICE") or "auto"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in DEVICES:
        raise UserError(
            "The device must be one of {devices}, not {name}.", devices=", ".join(DEVICES), name=f"{name[:40]!r}"
        )
    if name == "auto":
        name = next(device for device, is_available in available.items() if is_available)
    if not available[name]:
        raise UserError(
            "This machine has no {name} device that PyTorch can use; cpu always works.",
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
