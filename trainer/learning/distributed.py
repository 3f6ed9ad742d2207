"""World: the processes that train one network together, connected by torch.distributed."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import UserError
from trainer.images.batches import share

# A rank that dies closes its connection and is noticed at once. This limit is for a machine that no longer answers; it
# leaves time for one rank to download images while the others wait.
_TIMEOUT = timedelta(minutes=10)

T = TypeVar("T")


class LostRankError(RuntimeError):
    """Another process has ended, or has not answered for ten minutes."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes (ranks) that train one network together, as one of them sees it; World(0, 1) is a single process.

    All methods but `share` and `claim` are collective: every rank must call them, in the same order. They raise
    LostRankError if one does not.
    """

    rank: int
    size: int
    local_rank: int = 0  # among the ranks on this machine
    store: "dist.Store | None" = None  # type: ignore[name-defined]  # torchrun's, which outlives each rank
    stopping: Event = field(default_factory=Event)  # set on any rank to stop all

    def share(self, whole: Tensor, dim: int = 0) -> Tensor:
        """Returns this rank's part of a tensor; the parts differ in length by at most one, and may be empty."""
        return share(whole, self.rank, self.size, dim)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor, in place, by its mean over all ranks: bit for bit the same on every rank."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _peers():
            dist.all_reduce(flat)  # the sum: gloo has no mean
        means = (flat / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """Returns the `value` of each rank, in the order of ranks. The values must be picklable."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _peers():
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def share_errors(self) -> Iterator[None]:
        """Raises a UserError on every rank if one is raised inside on any of them.

        The block must not contain another collective call.
        """
        error = None
        try:
            yield
        except UserError as caught:
            if self.size == 1:
                raise
            error = caught
        sentences = [sentence for sentence in self.gather(str(error) if error else None) if sentence is not None]
        if sentences:
            raise UserError(sentences[0]) from error

    def claim(self) -> bool:
        """Returns whether this rank is the first to call this, so that only one reports an error that all notice.

        Does not wait for other ranks.
        """
        try:
            return self.store is None or self.store.add("claimed", 1) == 1
        except RuntimeError:  # torchrun has ended too
            return True


class _NeverSet(Event):
    """An Event that cannot be set."""

    def set(self) -> None:
        raise RuntimeError("All trainings of this process share ALONE; use World(0, 1).")


ALONE = World(0, 1, stopping=_NeverSet())


@contextmanager
def join() -> Iterator[World]:
    """Connects the processes that torchrun started and yields their World; World(0, 1) if there is only this one.

    CPUs communicate over gloo, NVIDIA GPUs over nccl. Inside, SIGTERM, which torchrun sends to the other ranks when one
    fails, acts like Ctrl-C. A rank that leaves without an error, or with SystemExit, waits for the others.

    Raises LostRankError if the other processes cannot be reached.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()) or os.environ["WORLD_SIZE"] == "1":
        yield World(0, 1)
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with _peers():
        store, rank, size = next(dist.rendezvous("env://", timeout=_TIMEOUT))  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # not earlier: the rendezvous above must end at SIGTERM
    world, leaving = World(rank, size, int(os.environ["LOCAL_RANK"]), store), None
    try:
        yield world
    except SystemExit as error:
        leaving = error
    except LostRankError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it now, and this rank has to report the error
        raise
    world.gather(None)  # torchrun ends all ranks when one fails: first let rank 0 report why
    dist.destroy_process_group()
    if leaving:
        raise leaving


def check_batch_size(world: World, batch_size: int) -> None:
    """Raises UserError if a batch has fewer images than there are ranks."""
    if batch_size < world.size:
        raise UserError(
            "A batch_size of {batch_size} is too small for {size} processes to share.",
            batch_size=batch_size,
            size=world.size,
        )


def own_device(world: World, device: torch.device) -> torch.device:
    """Returns this rank's device: a GPU of its own, or the CPU for all. Raises UserError if there are too few GPUs."""
    if world.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError("Several processes cannot train on {type} together; add --device cpu.", type=device.type)
    if world.local_rank >= torch.cuda.device_count():
        raise UserError(
            "This machine has {count} GPUs, fewer than processes; start one process for each GPU, or add --device cpu.",
            count=torch.cuda.device_count(),
        )
    own = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(own)
    return own


@contextmanager
def _peers() -> Iterator[None]:
    """Turns an error of communication with the other ranks into a LostRankError."""
    try:
        yield
    except RuntimeError as error:  # gloo and the store raise no subclass of it
        raise LostRankError(
            "Another process of this training has ended or cannot be reached, so all end. The run's last epoch is "
            "saved: continue it with `resume` and any number of processes."
        ) from error
