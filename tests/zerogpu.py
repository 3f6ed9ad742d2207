"""A ZeroGPU scheduler on this machine's loopback interface, with the HTTP API of the real one.

It manages one imaginary GPU. One task at a time has it, for at most the duration that the task declared (then the
worker is killed) and within the quota of the visitor, whom the token in the request identifies. The client is
spaces/zero/api.py; `Scheduler.environment` makes an app use this scheduler.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

PATIENCE = 20.0


@dataclass(kw_only=True)
class Lease:
    """One use of the GPU by a task.

    `started` and `ended` are seconds of `time.monotonic`; `processor_seconds` is the processor time that the worker
    took, which unlike the elapsed time does not depend on what else the machine does.
    """

    token: str | None
    task: str
    declared: int
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    pid: int | None = None
    processor_seconds: float = 0.0
    failed: bool = False
    killed: bool = False


@dataclass(kw_only=True)
class Scheduler:
    """The leases of the GPU and the limits: `longest` seconds for a lease, and `left` seconds of quota for each token.

    A worker is killed after the declared duration times `patience`. The default leaves a busy machine enough time.
    """

    longest: int = 3600
    patience: float = PATIENCE
    left: dict[str | None, float] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    workers: dict[str, int] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    reports: int = 0
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def environment(self, home: str) -> dict[str, str]:
        """Returns the environment variables of a ZeroGPU Space that uses this scheduler; `spaces` writes to `home`."""
        return {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": self.url, "HOME": home}

    def settle(self) -> None:
        """Waits until the GPU is free."""
        end = time.monotonic() + 120
        while self.current is not None:
            assert time.monotonic() < end, "the GPU was not released within two minutes"
            time.sleep(0.05)

    @property
    def current(self) -> Lease | None:
        """The lease that has not ended, if there is one."""
        return next((lease for lease in self.leases if lease.ended is None), None)

    def end(self, lease: Lease, *, failed: bool) -> None:
        """Ends a lease and subtracts its seconds from the quota."""
        with self.lock:
            lease.ended, lease.failed = time.monotonic(), failed
            lease.processor_seconds += processor_seconds(lease.pid)
            if lease.token in self.left:
                self.left[lease.token] -= lease.ended - lease.started

    def kill_overdue(self) -> None:
        """Kills the worker that has had the GPU for longer than `patience` allows."""
        with self.lock:
            lease = self.current
            if lease and lease.pid and time.monotonic() - lease.started > lease.declared * self.patience:
                lease.killed = True
                with suppress(ProcessLookupError):
                    os.kill(lease.pid, signal.SIGKILL)
                self.workers.pop(lease.task, None)
                self.end(lease, failed=True)


def processor_seconds(pid: int | None) -> float:
    """Returns the processor time that a process has taken so far; 0 if it has ended."""
    try:
        values = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")  # user and system time, see proc_pid_stat(5)


@contextmanager
def serve_scheduler() -> Iterator[Scheduler]:
    """A scheduler that answers at `Scheduler.url` until the with block ends."""
    scheduler = Scheduler()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(scheduler))
    scheduler.url = f"http://127.0.0.1:{server.server_port}"
    closed = threading.Event()

    def watch():
        while not closed.wait(0.05):
            scheduler.kill_overdue()

    threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    try:
        yield scheduler
    finally:
        closed.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


def _handler(scheduler: Scheduler) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            address = urlsplit(self.path)
            parameters = dict(parse_qsl(address.query))
            getattr(self, address.path.strip("/").replace("-", "_"))(**parameters)

        def startup_report(self):
            scheduler.reports += 1
            self.answer(200)

        def schedule(self, *, taskId, durationSeconds, cgroupPath, enableQueue, tokenVersion, token=None):
            declared = int(durationSeconds)
            left = scheduler.left.get(token, 1e6)
            if declared > scheduler.longest or declared > left:
                scheduler.refused.append(declared)
                illegal = declared > scheduler.longest
                why = "illegal-duration" if illegal else "quota-exceeded"
                wait = -1 if illegal else 3600
                self.answer(429, {"left": int(max(0, left)), "wait": wait}, **{"X-Approve-Result": why})
                return
            with scheduler.lock:
                lease = self.start_lease(token, taskId, declared)
            if lease is not None:
                self.answer(200, lease)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("X-Queuing-Reason", "concurrency")
            self.end_headers()
            while lease is None:
                time.sleep(0.2)
                with scheduler.lock:
                    lease = self.start_lease(token, taskId, declared)
                event = "event: ping\n\n" if lease is None else f"event: succeeded\ndata: {json.dumps(lease)}\n\n"
                self.wfile.write(event.encode())

        def start_lease(self, token, task, declared) -> dict | None:
            if scheduler.current is not None:
                return None
            lease = Lease(token=token, task=task, declared=declared, pid=scheduler.workers.get(task))
            lease.processor_seconds -= processor_seconds(lease.pid)
            scheduler.leases.append(lease)
            name = str(len(scheduler.leases) - 1)
            return {"idle": lease.pid is not None, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": name}

        def allow(self, *, allowToken, pid):
            lease = scheduler.leases[int(allowToken)]
            if lease.pid is None:  # a new worker; its start before this request is not counted
                lease.processor_seconds -= processor_seconds(int(pid))
            lease.pid = scheduler.workers[lease.task] = int(pid)
            self.answer(200)

        def release(self, *, allowToken, fail):
            lease = scheduler.leases[int(allowToken)]
            if lease.ended is not None:
                self.answer(404)
                return
            scheduler.end(lease, failed=fail == "true")
            if lease.failed:
                scheduler.workers.pop(lease.task, None)
            self.answer(200)

        def answer(self, status, content=None, **headers):
            body = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
