"""Compares a training started on the page with the same one on the command line.

Both are measured by the times of their files, from the untrained network to the last epoch's. The browser runs on the
same machine, so its rendering is part of the measurement.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.app import REPOSITORY, App, new_page, running_app, visit
from benchmarks.report import in_turns, machine, options, report, run

_MOST_SECONDS = 3600


def main() -> None:
    parser = options(__doc__, data="synthetic")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder)
        with running_app(args.data, checkpoints) as app, new_page() as page:
            _on_page(page, app, checkpoints, 1)  # warm-up
            variants = {
                "page": lambda _: _on_page(page, app, checkpoints, args.epochs),
                "command line": lambda _: _on_command_line(args.data, checkpoints, args.epochs),
            }
            seconds = in_turns(variants, args.rounds, args.seed)
    rounds = zip(seconds["page"], seconds["command line"], strict=True)
    report(
        "page",
        {
            **{f"{variant}, seconds": values for variant, values in seconds.items()},
            "the page takes more, %": [100 * (on_page / alone - 1) for on_page, alone in rounds],
        },
        on=machine(),
        to=args.json,
        epochs=args.epochs,
        data=args.data,
    )


def _on_page(page: Page, app: App, checkpoints: Path, epochs: int) -> float:
    before = set(checkpoints.iterdir())
    visit(page, f"{app.url}/?epochs={epochs}")
    page.click("#train")
    # Not the page's status, which says Done for the previous run until this one starts.
    deadline = time.monotonic() + _MOST_SECONDS
    while not (runs := [folder for folder in set(checkpoints.iterdir()) - before if _weights(folder, epochs).exists()]):
        if time.monotonic() > deadline:
            sys.exit(f"The page's training has not ended within {_MOST_SECONDS} seconds.")
        page.wait_for_timeout(200)
    return _between(runs[0], epochs)


def _on_command_line(data: str, checkpoints: Path, epochs: int) -> float:
    name = f"alone-{len(list(checkpoints.iterdir()))}"
    settings = ["--epochs", str(epochs), "--data", data, "--checkpoints", str(checkpoints), "--run", name]
    command = [sys.executable, "-m", "trainer", "train", "--json", *settings]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return _between(checkpoints / name, epochs)


def _between(run: Path, epochs: int) -> float:
    """Returns the seconds between the first and the last weights of a run."""
    first, last = (_weights(run, epoch).stat().st_mtime_ns for epoch in (0, epochs))
    return (last - first) / 1e9


def _weights(run: Path, epoch: int) -> Path:
    return run / "epochs" / f"epoch-{epoch:04d}.safetensors"


if __name__ == "__main__":
    run(main)
