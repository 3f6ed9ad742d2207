"""Which device to compute on."""

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
    """The device of a name in DEVICES; None: of OPTIMIZER_LAB_DEVICE, or else `auto`, the fastest there is.

    Raises ValueError for another name, or one this machine does not have.
    """
    name = name or os.environ.get("OPTIMIZER_LAB_DEVICE") or "auto"
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in DEVICES:
        raise UserError("The device must be one of {join}, not {name}.", join=", ".join(DEVICES), name=f"{name[:40]!r}")
    if name == "auto":
        name = next(device for device, there in found.items() if there)
    if not found[name]:
        raise UserError(
            "This machine has no {name} device that PyTorch can use; cpu always works.",
            name=name,
        )
    return torch.device(name)


def allow_tf32(device: torch.device) -> None:
    """Makes this process multiply float32 in TF32 on an NVIDIA GPU: faster, with ten bits of mantissa.

    That holds for convolutions (as torch does anyway) and for matrices alike. Any other device changes nothing.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Around work on a device: where its memory does not suffice, a ValueError that says what takes less."""
    try:
        yield
    except RuntimeError as error:
        # torch.OutOfMemoryError is what CUDA raises most often; all else is a RuntimeError, known by its words alone.
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        raise UserError(
            "The device ran out of memory. A smaller batch_size takes less, and so do fewer pictures "
            "(num_images), a smaller model, or fewer settings side by side."
        ) from error
