"""Measures requests without a browser: pages opened at the same time, and pictures classified by many clients.

A page is opened once it has been sent and its load events have ended. Pictures are classified by the app and by a bare
Gradio app that returns the same answer to all, first idle, then during a training of the app. With --against, the same
is measured in turns with another checkout of this repository.
"""

import asyncio
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import httpx
import torch
from torchvision.io import write_png

from benchmarks.app import REPOSITORY, running_app
from benchmarks.load import training
from benchmarks.report import in_turns, machine, options, percentile, report, run
from trainer.runs import run_folder
from ui.stored_runs import BUNDLED

_OLDEST = 1e9  # the time of the stored runs, in seconds since 1970


def main() -> None:
    parser = options(__doc__, data="synthetic")
    parser.add_argument("--pages", type=int, default=100, help="pages opened at the same time")
    parser.add_argument("--clients", type=int, default=50, help="clients that classify at the same time")
    parser.add_argument("--pictures", type=int, default=5, help="pictures of each client")
    parser.add_argument("--runs", type=int, default=0, help="stored runs of other visitors")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, such as a git worktree")
    args = parser.parse_args()
    checkouts = {"": REPOSITORY, **({" (other checkout)": args.against.resolve()} if args.against else {})}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs = _stored(Path(folder, "runs"), args.runs)
        apps = {
            name: stack.enter_context(running_app(args.data, runs, checkout=checkout))
            for name, checkout in checkouts.items()
        }
        picture = Path(folder, "picture.png")
        write_png(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), str(picture))
        open_pages = {name: lambda _, url=app.url: _opened(url, args.pages) for name, app in apps.items()}
        bare = stack.enter_context(running_app(args.data, runs, program="benchmarks/bare.py"))
        classify = {
            name: lambda _, url=app.url: _classified(url, picture, args.clients, args.pictures)
            for name, app in {**apps, " (bare Gradio)": bare}.items()
            if args.clients
        }
        rows: dict[str, list[float]] = {}
        errors: list[str] = []
        for name, app in apps.items():
            rows[f"first page{name}, seconds"] = _opened(app.url, 1)
            rows[f"second page{name}, seconds"] = _opened(app.url, 1)
            rows[f"idle app{name}, MiB"] = [app.own_memory_mib()]
        for name, rounds in in_turns(open_pages if args.pages else {}, args.rounds, args.seed).items():
            rows[f"last of {args.pages} pages{name}, seconds"] = [max(seconds) for seconds in rounds]
            rows[f"memory of a session{name}, MiB"] = [
                (apps[name].own_memory_mib() - rows[f"idle app{name}, MiB"][0]) / (args.pages * args.rounds)
            ]
        for call in classify.values():
            call(0)  # the first classification waits for imports
        for when, begun in ((", idle", nullcontext()), (", during a training", training(apps[""].url, errors))):
            with begun:
                for name, rounds in in_turns(classify, args.rounds, args.seed).items():
                    for share in (0.5, 0.99):
                        values = [percentile(seconds, share) for seconds, _ in rounds]
                        rows[f"classify{name}{when}, p{100 * share:.0f}, seconds"] = values
                    rows[f"classify{name}{when}, answers a second"] = [rate for _, rate in rounds]
    print("\n".join(errors))
    report("opening", rows, on=machine(), to=args.json, pages=args.pages, clients=args.clients, runs=args.runs)


def _stored(folder: Path, count: int) -> Path:
    """Creates a folder with `count` runs of as many visitors."""
    folder.mkdir()
    for _ in range(count):
        run = folder / run_folder.new_key()
        run.mkdir()
        (run / ".owner").write_text(secrets.token_hex(32), encoding="utf-8")
        shutil.copy(BUNDLED / "quick" / "training.json", run)
    return folder


def _opened(url: str, count: int) -> list[float]:
    """Returns the seconds until each of the pages, opened at the same time, has loaded."""

    async def open_page(client: httpx.AsyncClient) -> None:
        (await client.get("/")).raise_for_status()
        calls = [(one["id"], values) for one, values in loading]
        await _call(client, calls)

    with httpx.Client(base_url=url, timeout=600) as client:
        config = client.get("/config").json()
    values = {part["id"]: part["props"].get("value") for part in config["components"]}
    loading = [
        (one, [values[part] for part in one["inputs"]])
        for one in config["dependencies"]
        if one["backend_fn"] and any(event == "load" for _, event in one["targets"])
    ]
    return asyncio.run(_at_once(url, [open_page] * count))


def _classified(url: str, picture: Path, clients: int, count: int) -> tuple[list[float], float]:
    """Returns the seconds of each classification, and the classifications a second."""
    seconds: list[float] = []
    with httpx.Client(base_url=url, timeout=600) as client:
        (path,) = client.post("/gradio_api/upload", files={"files": picture.read_bytes()}).json()
        config = client.get("/config").json()
    endpoint = next(one["id"] for one in config["dependencies"] if one["api_name"] == "classify")

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(count):
            start = time.perf_counter()
            await _call(client, [(endpoint, [{"path": path, "meta": {"_type": "gradio.FileData"}}, "quick"])])
            seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    asyncio.run(_at_once(url, [work] * clients))
    return seconds, len(seconds) / (time.perf_counter() - start)


async def _at_once(url: str, visits: list[Callable[[httpx.AsyncClient], Awaitable[None]]]) -> list[float]:
    """Returns the seconds of each visit; all start at the same time, each with a session of its own."""
    start = time.perf_counter()

    async def measured(visit: Callable[[httpx.AsyncClient], Awaitable[None]]) -> float:
        session = {"session_hash": secrets.token_hex(8)}
        async with httpx.AsyncClient(base_url=url, timeout=600, params=session, transport=transport) as client:
            await visit(client)
        return time.perf_counter() - start

    # The server closes connections that have been idle for five seconds, perhaps just when one is used again.
    transport = _Shared(limits=httpx.Limits(max_connections=None, keepalive_expiry=1))
    seconds = await asyncio.gather(*map(measured, visits))
    await transport.close_all()
    return list(seconds)


class _Shared(httpx.AsyncHTTPTransport):
    """A pool of connections that outlives its clients."""

    async def __aexit__(self, *error: Any) -> None:
        pass

    async def close_all(self) -> None:
        await super().aclose()


async def _call(client: httpx.AsyncClient, calls: list[tuple[int, list[Any]]]) -> None:
    """Calls functions of the page by their indices, and waits for their results. Raises RuntimeError if one fails."""
    session = client.params["session_hash"]
    for index, data in calls:
        body = {"fn_index": index, "data": data, "session_hash": session, "event_data": None, "trigger_id": None}
        (await client.post("/gradio_api/queue/join", json=body)).raise_for_status()
    left = len(calls)
    async with client.stream("GET", "/gradio_api/queue/data") as stream:
        async for line in stream.aiter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("msg") == "process_completed":
                if not message["success"]:
                    raise RuntimeError(message["output"])
                left -= 1
                if not left:
                    return


if __name__ == "__main__":
    run(main)
