"""Records a finished sweep for the page's first sight: python -m scripts.record_sweep FOLDER."""

import argparse
import sys
from pathlib import Path

from trainer.errors import UserError
from trainer.sweeps import folder, recorded

OUTPUT = Path(__file__).parents[1] / "checkpoints" / "sweep.json"


def record(place: Path, output: Path) -> int:
    """Writes the sweep in the folder `place` to the file `output`; returns its number of runs.

    Raises UserError if there is no sweep, or if some of its runs have not ended.
    """
    sweep = folder.read(place)
    runs = folder.runs_of(sweep)
    left = folder.unfinished(sweep.grid.cells, runs)
    if left:
        raise UserError(f"{len(left)} runs have not ended: finish them with python -m trainer sweep --resume {place}")
    recorded.write_recording(output, sweep, runs, folder.command(sweep))
    return len(runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.record_sweep", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the sweep's folder")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE")
    options = parser.parse_args()
    try:
        count = record(options.folder, options.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.output}: {count} runs, {options.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
