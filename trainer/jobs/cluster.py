"""Cluster: runs work on a Ray cluster. Ray is imported only when one is chosen."""

import itertools
import logging
import math
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trainer
from trainer.errors import Message, UserError, first_line
from trainer.jobs.process import NoWorkersError, Turns, WorkerLostError, events_of
from trainer.jobs.ray_node import packed, storable
from trainer.jobs.ray_tasks import OTHER_VERSION, Tasks, cannot_run, fingerprint
from trainer.jobs.work import Images, Work, images_in
from trainer.learning.device import choose_device

_logger = logging.getLogger(__name__)

LOCAL = "local"
HERE = "ray"

_SECONDS_TO_ANSWER = 5.0
_SECONDS_TO_START = 120.0  # until each node has started a process and imported the library
_SECONDS_BETWEEN_TURNS = 0.1
_ON_THE_HEAD = {"node:__internal_head__": 0.001}  # a resource that Ray gives to the head node alone
_LOST = Message("The Ray cluster lost the worker that trained: a node failed, or its memory ran out.")
_UNREACHABLE = Message("The connection to the Ray cluster was lost; what was saved can be resumed.")


def check_place(text: str) -> str:
    """Returns where work is to run: local, ray (a cluster that is started here) or ray://HOST:PORT (a running one).

    Raises UserError if it is something else.
    """
    with suppress(ValueError):  # no port, or a wrong one
        address = urlsplit(text)
        is_address = address.scheme == "ray" and bool(address.hostname and address.port) and not address.path
        if text in (LOCAL, HERE) or is_address:
            return text
    raise UserError("Work runs on local, ray or ray://HOST:PORT, not on {text}.", text=f"{text[:80]!r}")


def connect(place: str, *, device: str | None = None, parallel: int | None = None) -> "Cluster":
    """Returns a connection to a Ray cluster: to a running one, or to one that is started here and ends with it.

    `device` is one of DEVICES, for the nodes. `parallel` is the number of tasks to run at a time, by default one for
    each free GPU or core; if there are more tasks than GPUs, they share them. Raises UserError if Ray is not installed,
    if there is no such cluster, or if a node cannot run this version of the library.
    """
    ray = _import_ray()
    _init(ray, place)
    try:
        total, free = ray.cluster_resources(), ray.available_resources()
        if not total.get("CPU"):
            raise UserError("The Ray cluster has no workers; start some with ray start --address=HOST:PORT.")
        chosen = choose_device(device, {"cuda": bool(total.get("GPU")), "mps": False, "cpu": True})
        kind = "GPU" if chosen.type == "cuda" else "CPU"
        size = parallel or max(1, int(free.get(kind, 0)))
        _check_nodes(ray, fingerprint())
        needs = {"num_cpus": 1.0, "num_gpus": _share(total["GPU"], size) if kind == "GPU" else 0.0}
        return Cluster(ray, _caller(ray, place, (needs, chosen.type, fingerprint())), size)
    except BaseException:
        ray.shutdown()
        raise


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "Ray is not installed ({reason}); install it with: pip install -r requirements-ray.txt",
            reason=first_line(error),
        ) from None
    return ray


def _init(ray: Any, place: str) -> None:
    """Starts a cluster here, or connects to a running one; the code of the library goes with it."""
    options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    if place != HERE:
        _check_answers(place)
        options = {"address": place}
    # What Ray tells on stderr is for those who develop with it, such as the logs of every worker.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ray\.")
    environment = {"py_modules": [str(Path(trainer.__file__).parent)]}
    for is_second_try in (False, True):
        try:
            ray.init(**options, runtime_env=environment, log_to_driver=False, logging_level=logging.CRITICAL)
            return
        except Exception as error:
            # A busy head node sometimes fails to start the process that serves a client.
            if is_second_try or not isinstance(error, ConnectionAbortedError):
                raise UserError("The Ray cluster cannot be used: {reason}.", reason=_reason(error)) from error


def _reason(error: Exception) -> str:
    """Returns the reason for which Ray refuses, in one line: all it says, or the last line of a node's traceback."""
    text = str(error).strip() or type(error).__name__
    return " ".join((text.splitlines()[-1] if "Traceback" in text else text).split())[:300].rstrip(".")


def _check_answers(place: str) -> None:
    """Raises UserError if nothing listens at an address; Ray would try for half a minute."""
    address = urlsplit(place)
    try:
        socket.create_connection((address.hostname, address.port), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise UserError(
            "There is no Ray cluster at {place} ({reason}).", place=place, reason=first_line(error)
        ) from None


def _share(num_gpus: float, size: int) -> float:
    """Returns the part of a GPU that each of `size` tasks gets: a whole one, a half, a third …"""
    return math.floor(10_000 / max(1, math.ceil(size / num_gpus))) / 10_000  # Ray counts in ten-thousandths


def _check_nodes(ray: Any, expected: str) -> None:
    """Raises UserError if the fingerprint of a node is not the expected one, or if it cannot import the library."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(fingerprint)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    found = [task.options(num_cpus=0, scheduling_strategy=place, max_retries=0).remote() for place in places]
    deadline = time.monotonic() + _SECONDS_TO_START
    for answer in found:
        try:
            if ray.get(answer, timeout=max(0.0, deadline - time.monotonic())) != expected:
                raise UserError(OTHER_VERSION)
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            continue  # it has left the cluster
        except ray.exceptions.RayTaskError as error:
            raise cannot_run(error) from error
        except ray.exceptions.RayError as error:
            raise UserError("A node of the Ray cluster does not work: {reason}.", reason=_reason(error)) from error


class Cluster:
    """A connection to a Ray cluster, in which each piece of work is a task. Thread-safe.

    `size` is the number of tasks that should run at a time.
    """

    def __init__(self, ray: Any, call: Callable[..., Any], size: int) -> None:
        self.size = size
        self._ray, self._call = ray, call
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._turns: dict[int, Turns] = {}
        self._has_work = threading.Event()
        self._is_lost = False
        self._storing = threading.Lock()
        self._stored: dict[Images, Any] = {}  # references to the images in the object store
        threading.Thread(target=self._collect, daemon=True).start()

    def run(self, work: Work, stopping: threading.Event) -> Iterator[Any]:
        """Yields the events of the work, and a Served after each turn, until it ends or `stopping` is set.

        Work whose node is lost before its first turn starts again elsewhere. Raises UserError if the work is refused,
        WorkerLostError if its node is lost later, NoWorkersError if the cluster is.
        """
        for is_second_try in (False, True):
            has_begun = False
            try:
                with closing(self._attempt(work, stopping)) as events:
                    for event in events:
                        has_begun = True
                        yield event
            except WorkerLostError:
                if has_begun or is_second_try:
                    raise
            else:
                return

    def _attempt(self, work: Work, stopping: threading.Event) -> Generator[Any, None, None]:
        key, turns = next(self._keys), Turns()
        with self._lock:
            self._turns[key] = turns
            self._has_work.set()
        try:
            self._start(key, work)
            yield from events_of(turns, stopping)
        finally:
            with self._lock:
                self._turns.pop(key, None)
            self._stop(key)

    def close(self) -> None:
        """Ends the connection and all tasks; a cluster that was started here ends, too."""
        self._ray.shutdown()

    def _start(self, key: int, work: Work) -> None:
        if not self._is_lost:
            images, content = images_in(work.images), packed(work)
            try:
                with self._storing:
                    if work.images not in self._stored:
                        self._stored = {work.images: self._ray.put(storable(images))}
                    reference = self._stored[work.images]
                self._call("start", key, content, [reference])
                return
            except Exception:
                _logger.info("A task could not be started.", exc_info=True)
                self._is_lost = True
        raise NoWorkersError(_UNREACHABLE)

    def _stop(self, key: int) -> None:
        if not self._is_lost:
            with suppress(Exception):  # the cluster is lost, and the task with it
                self._call("stop", key)

    def _collect(self) -> None:
        """Hands the turns of all tasks to their work, as long as the cluster can be reached."""
        while not self._is_lost and self._has_work.wait():
            try:
                arrived = self._call("turns", _SECONDS_BETWEEN_TURNS)
            except Exception:
                _logger.info("The Ray cluster does not answer.", exc_info=True)
                self._is_lost = True
                break
            with self._lock:
                for key, turn in arrived:
                    if key in self._turns:
                        self._turns[key].put(turn or WorkerLostError(_LOST))
                if not self._turns:
                    self._has_work.clear()
        with self._lock:
            for turns in self._turns.values():
                turns.put(NoWorkersError(_UNREACHABLE))


def _caller(ray: Any, place: str, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """Returns a function that calls a method of Tasks by its name."""
    if place == HERE:
        tasks = Tasks(*arguments)
        return lambda name, *values: getattr(tasks, name)(*values)
    actor = ray.remote(Tasks).options(num_cpus=0, resources=_ON_THE_HEAD, max_concurrency=4).remote(*arguments)
    return lambda name, *values: ray.get(getattr(actor, name).remote(*values))
