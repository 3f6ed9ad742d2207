"""Which device to compute on."""

import os

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str | None = None) -> torch.device:
    """The device of a name in DEVICES; None: of OPTIMIZER_LAB_DEVICE, or else `auto`, the fastest there is.

    Raises ValueError for another name, or one this machine does not have.
    """
    name = name or os.environ.get("OPTIMIZER_LAB_DEVICE") or "auto"
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in DEVICES:
        raise ValueError(f"The device must be one of {', '.join(DEVICES)}, not {name[:40]!r}.")
    if name == "auto":
        name = next(device for device, there in found.items() if there)
    if not found[name]:
        raise ValueError(f"This machine has no {name} device that PyTorch can use; cpu always works.")
    return torch.device(name)
