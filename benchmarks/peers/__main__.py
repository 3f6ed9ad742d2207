"""Compares an epoch of `quick` in this app with the same one in other frameworks.

Each trains the same network from the same weights on the same pictures, plain SGD with momentum and no augmentation,
in a process of its own that waits while another one's epoch is measured. All but the app get the pictures as normalised
floating-point numbers. The first epoch of each, in which it compiles, is not counted. Frameworks that are not installed
(requirements-peers.txt) are left out.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.peers.app import config
from benchmarks.peers.task import BATCH_SIZE, Task, save
from benchmarks.report import in_turns, machine, options, report, run
from trainer.images.image_data import ImageData, Split, load_images, subset
from trainer.learning.learner import build_model

_NUM_TESTED = 1000  # pictures, which show that all learn the same
_BUSY = "import numpy; a = numpy.ones((512, 512))\nwhile True: a @ a"


class _Peer(NamedTuple):
    module: str
    package: str = "torch"
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed


_PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # as app.py and `python -m trainer` set it
_PEERS = {
    "app": _Peer("app", environment=_PASSIVE),
    "app, one thread": _Peer("app", environment={**_PASSIVE, "OMP_NUM_THREADS": "1"}),
    "tutorial's loop": _Peer("tutorial"),
    "Lightning": _Peer("lightning_fit", "lightning"),
    "fastai": _Peer("fastai_fit", "fastai"),
    "Keras fit": _Peer("keras_fit", "tensorflow"),
    "tf.function": _Peer("tf_function", "tensorflow"),
    "JAX": _Peer("jax_jit", "jax"),
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--batches", type=int, default=156, help=f"of {BATCH_SIZE} pictures, in an epoch")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, after a warm-up")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="busy processes at the same time")
    args = parser.parse_args()
    data = load_images(args.data)
    count = args.batches * BATCH_SIZE
    missing = sorted({peer.package for peer in _PEERS.values() if not find_spec(peer.package)})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder, "task.npz")
        save(_task(data, count), file)
        peers = {
            name: stack.enter_context(_process(peer, file))
            for name, peer in _PEERS.items()
            if peer.package not in missing
        }
        first = {name: epoch(0)[1] for name, epoch in peers.items()}
        load_before = os.getloadavg()[0]
        with _busy(args.load):
            measured = in_turns(peers, args.rounds, args.seed)
    seconds = {name: [one * 10_000 / count for one, _ in values] for name, values in measured.items()}
    report(
        "peers",
        {f"{name}, seconds per 10,000 pictures": values for name, values in seconds.items()},
        on=machine(),
        to=args.json,
        **{f"{name}, times the app's seconds": _ratio(values, seconds["app"]) for name, values in seconds.items()},
        **{
            f"{name}, test loss after the first and the last epoch": f"{first[name]:.3f}, {measured[name][-1][1]:.3f}"
            for name in measured
        },
        left_out=", ".join(missing) or "nothing",
        busy_processes=args.load,
        load_average_before=load_before,
        pictures=data.note,
    )


def _task(data: ImageData, count: int) -> Task:
    network = build_model(config(count), data, data.train)

    def normalised(split: Split) -> np.ndarray:
        images = (split.images.float() / 255 - network.mean) / network.std
        return images.permute(0, 2, 3, 1).contiguous().numpy()

    train, test = subset(data.train, count), subset(data.test, _NUM_TESTED)
    return Task(
        source=data.source,
        images=normalised(train),
        labels=train.labels.numpy(),
        test_images=normalised(test),
        test_labels=test.labels.numpy(),
        weights={name: values.numpy() for name, values in network.network.state_dict().items()},
    )


@contextmanager
def _process(peer: _Peer, file: Path) -> Iterator[Callable[[int], tuple[float, float]]]:
    """Starts a peer's process; yields a function that trains an epoch there and returns its seconds and loss."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.peers.{peer.module}", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            env={**os.environ, **peer.environment},
        ) as process,
    ):

        def epoch(_: int) -> tuple[float, float]:
            process.stdin.write("\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                log.seek(0)
                sys.exit(f"{peer.module} failed:\n{log.read()}")
            seconds, loss = json.loads(answer)
            return seconds, loss

        yield epoch


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Runs `count` processes that multiply matrices, each with one thread."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY], env=environment) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _ratio(theirs: list[float], ours: list[float]) -> str:
    return f"{statistics.median(theirs) / statistics.median(ours):.2f} (best {min(theirs) / min(ours):.2f})"


if __name__ == "__main__":
    run(main)
