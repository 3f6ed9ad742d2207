"""Runs a sweep on several workers at once, each of which trains one run after another."""

import contextvars
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts
from trainer.images.mirror import suited
from trainer.jobs.process import NoWorkersError, Served, WorkerLostError, WorkerProcess
from trainer.jobs.work import Race, Work
from trainer.learning.checkpoint import resumed
from trainer.learning.optimizers import build_optimizer
from trainer.learning.schedulers import build_scheduler
from trainer.learning.training_set import batches_per_epoch
from trainer.runs import run_folder
from trainer.runs.events import Finished
from trainer.runs.reader import read_checkpoint
from trainer.runs.recorder import Recorder
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.sweeps.axes import Axis, Cell, Grid
from trainer.sweeps.folder import Sweep, explain_damage

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_TICKS = 0.5
_MOST_LOSSES = 3  # of the worker during one run, which may itself be what ends the worker
_GPU_BYTES = 2 << 30  # that a training takes on a GPU, with the device's own share
_MOST_ON_A_GPU = 8


class Worker(Protocol):
    """What a sweep needs of a worker: a WorkerProcess, or a Cluster, which is as many workers as it has cores."""

    def run(self, work: Work, stopping: threading.Event) -> Iterator[Any]:
        """Yields the events of the work until it ends or `stopping` is set."""


def sweep_settings(settings: Mapping[str, Any], axes: Sequence[Axis], images: ImageData) -> tuple[dict[str, Any], str]:
    """Returns the settings that all runs of a sweep share, as `suited` does, and the reason of a change."""
    return (dict(settings), "") if "flip" in (axis.name for axis in axes) else suited(settings, images)


def fitting(whole: Grid, images: ImageData) -> Grid:
    """Returns the grid with the cells that cannot be trained on these images among those that are refused."""
    cells, refused = [], list(whole.refused)
    for cell in whole.cells:
        try:
            _check(cell.config, images)
        except UserError as error:
            refused.append((cell.values, str(error)))
        else:
            cells.append(cell)
    if not cells:
        raise UserError(refused[-1][1])
    return Grid(tuple(cells), tuple(refused))


def most_at_once(device: torch.device) -> int:
    """Returns how many runs to train at a time: one on each core, or as many as fit into the memory of a GPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(1, min(_MOST_ON_A_GPU, free // _GPU_BYTES))
    if device.type == "mps":
        return 1
    return os.cpu_count() or 1


def threads_of_each(count: int) -> int:
    """Returns the number of threads of each of `count` workers that share the cores of a CPU."""
    return max(1, (os.cpu_count() or 1) // max(1, count))


@contextmanager
def start_workers(device: torch.device, count: int) -> Iterator[list[WorkerProcess]]:
    """Starts worker processes on a device, on a CPU with their share of the cores each; they end with the `with` block.

    `count` may be 0.
    """
    threads = threads_of_each(count) if device.type == "cpu" else None
    workers = [WorkerProcess(device, threads=threads) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()


def run_sweep(
    sweep: Sweep,
    cells: Sequence[Cell],
    images: ImageData,
    workers: Sequence[Worker],
    stopping: threading.Event,
) -> Iterator[tuple[Cell, Run] | None]:
    """Trains the cells, each in its own folder; yields a cell and its run when it begins and when it has ended.

    Yields None about twice a second. A run that exists already is continued, and one that has ended is not trained
    again. Runs whose worker is lost start again from their last epoch; one that is refused, such as for lack of memory,
    ends as `interrupted` with the reason, and the others go on. When `stopping` is set, the runs end as `stopped` and
    can be continued. Raises UserError if a folder cannot be written, or if no worker can be reached any more.
    """
    waiting = deque(cells)
    reports: queue.SimpleQueue[tuple[Cell, Run] | BaseException | None] = queue.SimpleQueue()

    def work(worker: Worker) -> None:
        try:
            while not stopping.is_set():
                try:
                    cell = waiting.popleft()
                except IndexError:
                    break
                for run in _train(sweep, cell, images, worker, stopping):
                    reports.put((cell, run))
        except BaseException as error:
            reports.put(error)
        reports.put(None)

    # In the caller's context: a borrowed GPU is charged to the visitor whose request is in it.
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work, worker), daemon=True) for worker in workers
    ]
    for thread in threads:
        thread.start()
    left = len(threads)
    try:
        while left:
            try:
                report = reports.get(timeout=_SECONDS_BETWEEN_TICKS)
            except queue.Empty:
                yield None
                continue
            if isinstance(report, BaseException):
                raise report
            if report is None:
                left -= 1
            else:
                yield report
    finally:
        if left:  # the caller has given up, or an error ends the sweep
            stopping.set()
        for thread in threads:
            thread.join()


def _train(sweep: Sweep, cell: Cell, images: ImageData, worker: Worker, stopping: threading.Event) -> Iterator[Run]:
    """Yields the run of a cell as it begins and as it ends."""
    folder = sweep.folder_of(cell)
    for attempt in range(1, _MOST_LOSSES + 1):
        with run_folder.writing(folder):
            with explain_damage(sweep, cell):
                checkpoint = read_checkpoint(folder) if run_folder.is_run(folder) else None
            run = resumed(checkpoint) if checkpoint else Run(config=cell.config)
            yield run
            recorder = Recorder(run=run, folder=folder, data=facts(images), resume=checkpoint)
            try:
                for event in worker.run(Race.of([(cell.config, checkpoint)], images), stopping):
                    if not isinstance(event, Served):
                        recorder.record(event[1])
            except NoWorkersError:
                raise  # the others would end in the same way; all can be continued
            except UserError as error:
                if isinstance(error, WorkerLostError) and attempt < _MOST_LOSSES:
                    _logger.warning("The worker was lost while it trained %s.", cell.name)
                    continue
                recorder.record(Finished(reason="interrupted", advice=str(error)))
            if run.status == "training" and run.history:
                recorder.record(Finished(reason="stopped"))
            yield run
            return


def _check(config: TrainConfig, images: ImageData) -> None:
    """Raises UserError if the config does not fit the images, or if its schedule does not fit the run."""
    per_epoch = batches_per_epoch(config, images)
    build_scheduler(config, build_optimizer(config, [nn.Parameter(torch.zeros(1))]), batches_per_epoch=per_epoch)
