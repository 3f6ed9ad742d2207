"""A lab whose work runs in the thread of its job, on the CPU: fast, and it ends with the test."""

from pathlib import Path

import torch

from ui.lab import Lab


def run_here(work, stopping):
    """Runs work as a worker does, without a process."""
    for event in work.run(torch.device("cpu")):
        if stopping.is_set():
            return
        yield event


def make_lab(folder: Path, **options) -> Lab:
    """A lab with its runs in `folder`."""
    return Lab(checkpoints=folder, device=torch.device("cpu"), run=run_here, **options)
