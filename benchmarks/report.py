"""What every benchmark ends with: a table of medians and spreads on stdout, all values in a JSON file."""

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def options(about: str | None, *, data: str | None = None, has_order: bool = True) -> argparse.ArgumentParser:
    """A command line that has what every benchmark takes; and the seed, where things are measured in random order.

    `data` is where the pictures come from unless the command line says it.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", metavar="SOURCE", default=data, help="as for python -m trainer train")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value measured, and the machine, here")
    if has_order:
        parser.add_argument("--seed", type=int, default=0, help="of the order in which things are measured")
    return parser


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark; what is wrong with what it was told, such as a device that is not there, ends it in a line."""
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")


def in_turns(ways: Mapping[str, Callable[[int], T]], rounds: int, order: int) -> dict[str, list[T]]:
    """What each of the ways gives, once a round, whose number it is called with; in a random order, of that seed."""
    chance = random.Random(order)
    given: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in chance.sample(sorted(ways), len(ways)):
            given[name].append(ways[name](number))
    return given


def machine(device: str = "cpu") -> dict[str, str | int]:
    """Where the numbers come from."""
    told = {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return {**told, "gpu": torch.cuda.get_device_name()} if device == "cuda" else told


def report(
    name: str, measured: Mapping[str, Sequence[float]], *, on: Mapping[str, str | int], to: Path | None, **facts
) -> None:
    """Prints each row's median, smallest and largest value, then the facts; with `to`, writes them all as JSON.

    A value of infinity is something that never came; JSON has null for it.
    """
    width = max(map(len, measured))
    print(f"{'':{width}}  {'median':>10}  {'smallest':>10}  {'largest':>10}  values")
    for row, values in measured.items():
        numbers = (statistics.median(values), min(values), max(values))
        print(f"{row:{width}}  {'  '.join(f'{number:10.4g}' for number in numbers)}  {len(values)}")
    for fact, value in {**facts, **on}.items():
        print(f"{fact}: {value:.4g}" if isinstance(value, float) else f"{fact}: {value}")
    if to:
        values = {row: [one if math.isfinite(one) else None for one in those] for row, those in measured.items()}
        content = {"benchmark": name, "machine": on, "facts": facts, "measured": values}
        to.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that `share` of them, 0..1, are at or below."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
