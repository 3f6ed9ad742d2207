"""Several processes that train one network together: torch.distributed behind one small World value."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import UserError
from trainer.images.batches import share

# One that dies is noticed at once, by its closed connection; this is for a machine that has gone silent, and leaves
# time for a download that the others wait for.
_PATIENCE = timedelta(minutes=10)

T = TypeVar("T")


class LostRankError(RuntimeError):
    """Another process has ended, or has not answered for ten minutes."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes (torch: ranks) that train one network together, seen from one of them; World(0, 1) is alone.

    All but `share` and `claim` is an exchange: every rank must take part in it, in the same order. It raises
    LostRankError where one does not.
    """

    rank: int
    size: int
    local_rank: int = 0  # among those on the same machine
    store: "dist.Store | None" = None  # torchrun's own memory, which outlives each rank
    stopping: Event = field(default_factory=Event)  # set where this rank has been asked to stop: all will

    def share(self, whole: Tensor, dim: int = 0) -> Tensor:
        """This rank's part of a tensor; the parts differ in length by one at most, and may be empty."""
        return share(whole, self.rank, self.size, dim)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Puts the mean over all ranks into each of the tensors, the same to the last bit on every rank."""
        if self.size == 1:
            return
        together = torch.cat([tensor.flatten() for tensor in tensors])
        with _peers():
            dist.all_reduce(together)  # a sum: gloo knows no mean
        parts = (together / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, parts, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def gather(self, fact: T) -> list[T]:
        """What each rank has to say, by rank: anything that can be pickled, small or a checkpoint."""
        if self.size == 1:
            return [fact]
        facts: list = [None] * self.size
        with _peers():
            dist.all_gather_object(facts, fact)
        return facts

    @contextmanager
    def share_errors(self) -> Iterator[None]:
        """Makes a ValueError that is raised inside on any rank one that is raised on all of them.

        There must be no other exchange inside.
        """
        error = None
        try:
            yield
        except ValueError as caught:
            if self.size == 1:
                raise
            error = caught
        told = [sentence for sentence in self.gather(error and str(error)) if sentence is not None]
        if told:
            raise UserError(told[0]) from error

    def claim(self) -> bool:
        """Whether this rank is the first to ask: the one that says what several see. Needs no other rank to answer."""
        try:
            return self.store is None or self.store.add("claimed", 1) == 1
        except RuntimeError:  # torchrun has died too
            return True


ALONE = World(0, 1)


@contextmanager
def join() -> Iterator[World]:
    """This process's place among those that torchrun has started with it; World(0, 1) where it has started no other.

    CPUs talk over gloo, NVIDIA GPUs over nccl. Raises LostRankError where the others cannot be reached. Inside,
    SIGTERM, by which torchrun ends the rest when one rank has failed, is taken for Ctrl-C. A rank that leaves without
    an error, or as argparse leaves, waits for the others.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()) or os.environ["WORLD_SIZE"] == "1":
        yield World(0, 1)
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with _peers():
        store, rank, size = next(dist.rendezvous("env://", timeout=_PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # not sooner: nothing would end a rank that waits above
    world, leaving = World(rank, size, int(os.environ["LOCAL_RANK"]), store), None
    try:
        yield world
    except SystemExit as error:
        leaving = error
    except LostRankError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # or nobody would be left to say so
        raise
    world.gather(None)  # torchrun ends all as soon as one has failed: not before rank 0 has said why
    dist.destroy_process_group()
    if leaving:
        raise leaving


def check_batch_size(world: World, batch_size: int) -> None:
    """Raises ValueError where a batch has fewer images than there are ranks to share them."""
    if batch_size < world.size:
        raise UserError(
            "A batch_size of {batch_size} is too small for {size} processes to share.",
            batch_size=batch_size,
            size=world.size,
        )


def own_device(world: World, device: torch.device) -> torch.device:
    """The device of this rank: each has a GPU of its own, or they share the CPU. ValueError where it cannot be."""
    if world.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError("Several processes cannot train on {type} together; add --device cpu.", type=device.type)
    if world.local_rank >= torch.cuda.device_count():
        raise UserError(
            "There are more processes on this machine than GPUs, of which it has {device_count}; start "
            "one for each GPU, or add --device cpu.",
            device_count=torch.cuda.device_count(),
        )
    own = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(own)
    return own


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and the store raise nothing more precise
        raise LostRankError(
            "Another process of this training has ended or cannot be reached, so all end. The run's last epoch is "
            "kept: go on with `resume`, with any number of processes."
        ) from error
