"""Work on a real Ray cluster of two nodes with a core each."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from trainer.errors import UserError
from trainer.images.image_data import facts, load_images
from trainer.jobs import ray_tasks
from trainer.jobs.cluster import _check_nodes, connect
from trainer.jobs.process import NoWorkersError, Served
from trainer.jobs.work import Race, Search
from trainer.learning.lr_finder import find_lr
from trainer.runs.events import EpochEnded, Finished
from trainer.runs.reader import read_run
from trainer.settings.config import TrainConfig
from trainer.sweeps import folder
from trainer.sweeps.axes import parse_axis
from trainer.sweeps.folder import Sweep
from trainer.sweeps.runner import run_sweep
from ui.visitors import new_visitor

pytestmark = [
    pytest.mark.e2e,  # its file must not be split: a second cluster would slow the first one down
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # Ray leaves its logs open
]

REPOSITORY = Path(__file__).parents[2]
LONG = TrainConfig(epochs=1000, batch_size=1, scheduler="constant")
SHORT = TrainConfig(epochs=2, batch_size=8)
SWEPT = TrainConfig(epochs=10, batch_size=4, scheduler="constant")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def nodes():
    """The nodes, and the address of the cluster."""
    from ray.cluster_utils import Cluster

    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        # Otherwise the head sometimes crashes in gRPC's fork handlers when it starts the process that serves a client.
        patch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
        # Seconds for which a lost head is waited for: long enough for a busy machine.
        patch.setenv("RAY_CLIENT_RECONNECT_GRACE_PERIOD", "20")
        head = {"num_cpus": 1, "ray_client_server_port": port, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1)
        yield made, f"ray://127.0.0.1:{port}"
        made.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes):
    with closing(connect(nodes[1])) as connected:
        yield connected


@pytest.fixture(scope="module")
def pictures(image_folder):
    """Images in a file, like the app's."""
    return load_images(str(image_folder))


def run(cluster, work, stopping=None):
    """The events of the work, without the times."""
    return [event for event in cluster.run(work, stopping or threading.Event()) if not isinstance(event, Served)]


def swept(place, images, config, workers, on_epoch=lambda: None):
    """Runs a sweep over four seeds; returns, by seed, what must be equal bit for bit."""
    settings = {"epochs": config.epochs, "batch_size": config.batch_size, "scheduler": config.scheduler}
    sweep = Sweep(folder=place, settings=settings, axes=(parse_axis("seed=0,1,2,3"),), data=facts(images))
    ended = []
    for report in run_sweep(sweep, sweep.grid.cells, images, workers, threading.Event()):
        if report and report[1].status == "completed":
            ended.append(report[0].name)
        if any(read.history for read in folder.runs_of(sweep).values()):
            on_epoch()
    assert sorted(ended) == sorted(cell.name for cell in sweep.grid.cells), "each run ends once"
    return {cell.values["seed"]: exact(sweep.folder_of(cell)) for cell in sweep.grid.cells}


def exact(run_folder):
    """The losses and weights of a run."""
    rows = [(row.train_loss, row.test_loss, row.holdout_loss, row.grad_norm) for row in read_run(run_folder).history]
    return rows, (run_folder / "model.safetensors").read_bytes()


class Here:
    """A worker in this thread."""

    def run(self, work, stopping):
        return work.run(torch.device("cpu"))


@pytest.fixture(scope="module")
def local(pictures, tmp_path_factory):
    """The sweep on this machine, in one thread."""
    return swept(tmp_path_factory.mktemp("local"), pictures, SWEPT, [Here()])


def test_a_sweep_equals_that_of_one_machine_although_a_node_dies(nodes, cluster, local, pictures, tmp_path):
    """Bit for bit; the runs of the lost node go on elsewhere, and each ends once."""
    made, _ = nodes
    victims = [made.worker_nodes.copy().pop()]

    def kill():
        if victims:
            made.remove_node(victims.pop(), allow_graceful=False)

    assert cluster.size == 2
    assert swept(tmp_path / "killed", pictures, SWEPT, [cluster] * 2, kill) == local
    assert not victims
    made.add_node(num_cpus=1)


def test_stopping_frees_the_core(cluster, pictures):
    """Of trainings that run and of those that wait for a core."""
    stopping = threading.Event()
    threads = [threading.Thread(target=run, args=(cluster, of(LONG, pictures), stopping)) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    stopping.set()
    started = time.monotonic()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert run(cluster, of(SHORT, pictures))[-1] == (0, Finished(reason="completed"))
    assert time.monotonic() - started < 60


def test_a_search_and_a_refusal(cluster, pictures):
    """Both as in a worker process."""
    trials = cluster.run(Search.of(SHORT, pictures), threading.Event())
    assert next(trials) == next(find_lr(SHORT, pictures))
    trials.close()
    with pytest.raises(UserError, match="num_images"):
        run(cluster, of(SHORT.changed({"num_images": 50_000}), pictures))


def test_a_pretrained_network_goes_with_its_images(cluster, pictures):
    """The nodes have only the library, without the bundled networks; the results are those of this machine."""
    config = SHORT.changed({"pretrained": "frozen"})
    epochs = [
        [(row.test_loss, row.train_loss) for _, row in events if isinstance(row, EpochEnded)]
        for events in (run(cluster, of(config, pictures)), of(config, pictures).run(torch.device("cpu")))
    ]
    assert len(epochs[0]) == 3
    assert epochs[0] == epochs[1]


def test_a_node_with_another_version_is_refused(cluster, pictures):
    """Before anything runs, and on a node that joins later."""
    import ray

    with pytest.raises(UserError, match="another version"):
        _check_nodes(ray, "another")
    (turn,) = ray_tasks.run_on_node(b"", [], "cpu", "another")
    assert str(turn.error) == ray_tasks.OTHER_VERSION
    assert turn.is_over


def test_the_app_trains_on_it(nodes, cluster, pictures, tmp_path, monkeypatch):
    """As many jobs run as there are cores, the next one waits; Stop ends them, and Resume goes on."""
    import app

    monkeypatch.setattr("ui.lab.load_images", lambda progress: pictures)
    monkeypatch.setattr(app, "connect", {nodes[1]: cluster}.get)  # a process has only one connection
    monkeypatch.setenv("OPTIMIZER_LAB_WORKERS", nodes[1])
    monkeypatch.setenv("OPTIMIZER_LAB_CHECKPOINTS", str(tmp_path))
    lab = app.build_lab()
    visitors = [new_visitor() for _ in range(3)]
    jobs = [lab.train(visitor, [LONG]) for visitor in visitors]
    wait_for(lambda: all(job.runs[0].epoch >= 1 for job in jobs[:2]))
    assert [job.state for job in jobs] == ["running", "running", "waiting"]
    lab.jobs.stop(visitors[0])
    assert jobs[0].ended.wait(30)
    stopped = read_run(jobs[0].folders[0])
    assert stopped.status == "stopped"
    wait_for(lambda: jobs[2].runs[0].epoch >= 1)
    for visitor in visitors:
        lab.jobs.stop(visitor)
    assert all(job.ended.wait(30) for job in jobs)
    resumed = lab.resume(visitors[0], jobs[0].race, total_epochs=LONG.epochs, changes={})
    wait_for(lambda: resumed.runs[0].epoch > stopped.epoch)
    lab.jobs.stop(visitors[0])
    assert resumed.ended.wait(30)
    assert read_run(resumed.folders[0]).history[: len(stopped.history)] == stopped.history


def test_a_sweep_on_ray_here_goes_on_elsewhere_after_ctrl_c(nodes, local, image_folder, tmp_path):
    """On another cluster; with the results of this machine, and nothing on stderr that is not ours."""
    axes = ["--vary", "seed=0,1", "--epochs", str(SWEPT.epochs), "--batch-size", str(SWEPT.batch_size)]
    shared = ["--scheduler", SWEPT.scheduler, "--data", image_folder, "--checkpoints", tmp_path, "--run", "here"]
    place = tmp_path / "here"
    first = start("sweep", "--on", "ray", *axes, *shared)
    wait_for(lambda: first.poll() is not None or list(place.glob("runs/*/training.json")))
    os.killpg(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 130, errors
    assert "Go on with: python -m trainer sweep --resume" in errors
    second = start("sweep", "--resume", place, "--on", nodes[1], "--json")
    rows, errors = second.communicate(timeout=300)
    assert (second.returncode, errors) == (0, "")
    assert [json.loads(line)["event"] for line in rows.splitlines()][-1] == "best"
    swept_here = {cell.values["seed"]: exact(place / "runs" / cell.name) for cell in folder.read(place).grid.cells}
    assert swept_here == {seed: local[seed] for seed in (0, 1)}


def test_a_lost_cluster_ends_all_work(nodes, cluster, pictures):
    """What runs and what begins afterwards, with a sentence that is not that of a lost node."""
    events = cluster.run(of(LONG, pictures), threading.Event())
    next(events)
    nodes[0].remove_node(nodes[0].head_node, allow_graceful=False)
    for work in (events, cluster.run(of(SHORT, pictures), threading.Event())):
        with pytest.raises(NoWorkersError, match="was lost; what was saved"):
            list(work)


def start(*words):
    """Starts a command in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *map(str, words)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def of(config, pictures):
    return Race.of([(config, None)], pictures)
