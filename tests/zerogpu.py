"""A small ZeroGPU scheduler on this machine's loopback, which `spaces` asks as it asks the real one.

It lends one GPU that is not there: to one piece of work at a time, for as long as was declared and no longer (it kills
the worker then), against what is left of a visitor's quota, by the token in their request. See spaces/zero/api.py for
what is asked, and `environment` for what makes an app ask.
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
from urllib.parse import parse_qsl, urlsplit


@dataclass(kw_only=True)
class Lease:
    """A piece of work that the GPU was lent to, its times in seconds of `time.monotonic`."""

    token: str | None
    task: str
    declared: int
    begun: float = field(default_factory=time.monotonic)
    ended: float | None = None
    pid: int | None = None
    failed: bool = False
    killed: bool = False


@dataclass(kw_only=True)
class Scheduler:
    """Who had the GPU, and what it lends: `longest` seconds at a time, and a token `left` seconds in all.

    It waits for the declared duration times `patience` before it kills.
    """

    longest: int = 3600
    patience: float = 1.0
    left: dict[str | None, float] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    workers: dict[str, int] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    reports: int = 0
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def environment(self, home: str) -> dict[str, str]:
        """What a ZeroGPU Space's environment has; `spaces` keeps what it writes in `home`."""
        return {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": self.url, "HOME": home}

    def settle(self) -> None:
        """Waits until nobody has the GPU."""
        for _ in range(600):
            if self.lent is None:
                return
            time.sleep(0.05)
        raise AssertionError("the GPU was not given back within half a minute")

    @property
    def lent(self) -> Lease | None:
        """The lease that has not ended."""
        return next((lease for lease in self.leases if lease.ended is None), None)

    def end(self, lease: Lease, *, failed: bool) -> None:
        """Takes the GPU back, and its seconds from the quota."""
        with self.lock:
            lease.ended, lease.failed = time.monotonic(), failed
            if lease.token in self.left:
                self.left[lease.token] -= lease.ended - lease.begun

    def kill_overdue(self) -> None:
        """Ends the worker that has had the GPU for longer than it declared."""
        with self.lock:
            lease = self.lent
            if lease and lease.pid and time.monotonic() - lease.begun > lease.declared * self.patience:
                lease.killed = True
                with suppress(ProcessLookupError):
                    os.kill(lease.pid, signal.SIGKILL)
                self.workers.pop(lease.task, None)
                self.end(lease, failed=True)


@contextmanager
def lending(**facts) -> Iterator[Scheduler]:
    """A scheduler that listens until the with block ends."""
    scheduler = Scheduler(**facts)
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
            asked = dict(parse_qsl(address.query))
            getattr(self, address.path.strip("/").replace("-", "_"))(**asked)

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
                lease = self.lend(token, taskId, declared)
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
                    lease = self.lend(token, taskId, declared)
                event = "event: ping\n\n" if lease is None else f"event: succeeded\ndata: {json.dumps(lease)}\n\n"
                self.wfile.write(event.encode())

        def lend(self, token, task, declared) -> dict | None:
            if scheduler.lent is not None:
                return None
            lease = Lease(token=token, task=task, declared=declared, pid=scheduler.workers.get(task))
            scheduler.leases.append(lease)
            name = str(len(scheduler.leases) - 1)
            return {"idle": lease.pid is not None, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": name}

        def allow(self, *, allowToken, pid):
            lease = scheduler.leases[int(allowToken)]
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
