"""The options and the report of every benchmark: medians and ranges on stdout, and all values in a JSON file."""

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
    """Returns a parser with the options of every benchmark, and --seed if the measurements are in random order.

    `data` is the default source of the pictures.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", metavar="SOURCE", default=data, help="as for python -m trainer train")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values, and the machine, to this file")
    if has_order:
        parser.add_argument("--seed", type=int, default=0, help="seed of the order of measurements")
    return parser


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark; exits with one line on a user's error, such as a device that is not available."""
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")


def in_turns(variants: Mapping[str, Callable[[int], T]], rounds: int, seed: int) -> dict[str, list[T]]:
    """Calls each variant once a round, with the round's number, in random order; returns the results by variant."""
    rng = random.Random(seed)
    results: dict[str, list[T]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in rng.sample(sorted(variants), len(variants)):
            results[name].append(variants[name](number))
    return results


def machine(device: str = "cpu") -> dict[str, str | int]:
    """Describes the machine that the values were measured on."""
    facts = {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return {**facts, "gpu": torch.cuda.get_device_name()} if device == "cuda" else facts


def report(
    name: str, measured: Mapping[str, Sequence[float]], *, on: Mapping[str, str | int], to: Path | None, **facts
) -> None:
    """Prints each row's median, smallest and largest value, then the facts; with `to`, writes all of it as JSON.

    An infinite value stands for something that did not happen; it becomes null in the JSON.
    """
    width = max(map(len, measured))
    print(f"{'':{width}}  {'median':>10}  {'smallest':>10}  {'largest':>10}  values")
    for row, values in measured.items():
        numbers = (statistics.median(values), min(values), max(values))
        print(f"{row:{width}}  {'  '.join(f'{number:10.4g}' for number in numbers)}  {len(values)}")
    for fact, value in {**facts, **on}.items():
        print(f"{fact}: {value:.4g}" if isinstance(value, float) else f"{fact}: {value}")
    if to:
        finite = {
            row: [value if math.isfinite(value) else None for value in values] for row, values in measured.items()
        }
        content = {"benchmark": name, "machine": on, "facts": facts, "measured": finite}
        to.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that a fraction `share`, 0–1, of the values do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
