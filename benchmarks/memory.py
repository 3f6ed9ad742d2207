"""Measures the memory of a training: its peak with the whole image set, and its growth from epoch to epoch.

Each is measured in a separate process, as the resident set size that the system reports.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import machine, options, report, run

_MEBIBYTE = 1 << 20


def main() -> None:
    parser = options(__doc__, has_order=False)
    parser.add_argument("--epochs", type=int, default=30, help="epochs over drawn shapes, for the growth; at least 3")
    parser.add_argument("--num-images", type=int, default=0, help="number of drawn shapes; 0: all")
    args = parser.parse_args()
    peak, _ = _training("--epochs", "1", *(["--data", args.data] if args.data else []))
    drawn = ["--data", "synthetic", "--num-images", str(args.num_images)]
    _, held = _training("--epochs", str(args.epochs), *drawn)
    third = len(held) // 3
    report(
        "memory",
        {"an epoch of the data set, MiB at most": [peak], "at each epoch's end, MiB": held},
        on=machine(),
        to=args.json,
        epochs=args.epochs,
        images=args.num_images or "all",
        growth_from_second_to_last_third_mib=statistics.median(held[-third:]) - statistics.median(held[third:-third]),
    )


def _training(*settings: str) -> tuple[float, list[float]]:
    """Returns the peak memory of a training process, and its memory at the end of each epoch, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trainer", "train", "--json", "--checkpoints", folder, *settings]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        held = [_held(process.pid) for line in process.stdout if json.loads(line)["event"] == "epoch"]
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit("The training failed.")
    return used.ru_maxrss * 1024 / _MEBIBYTE, held


def _held(process: int) -> float:
    """Returns the resident set size of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / _MEBIBYTE


if __name__ == "__main__":
    run(main)
