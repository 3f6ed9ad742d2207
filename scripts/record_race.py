"""Records a race for the page's first sight: python -m scripts.record_race --data FOLDER."""

import argparse
import shlex
import sys
from pathlib import Path

from tqdm import tqdm

from trainer.errors import UserError
from trainer.images.image_data import facts, load_images
from trainer.learning.race import race
from trainer.runs.recorded import write_race
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

RACE = Path(__file__).parents[1] / "checkpoints" / "race.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.record_race", description=__doc__)
    parser.add_argument("--data", metavar="SOURCE", help="as for python -m trainer train")
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adamw", "muon"], metavar="NAME")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--num-images", type=int, default=0, help="0: all")
    parser.add_argument("--output", type=Path, default=RACE, metavar="FILE")
    options = parser.parse_args()
    try:
        images = load_images(options.data)
        configs = [
            TrainConfig(optimizer=name, epochs=options.epochs, num_images=options.num_images)
            for name in options.optimizers
        ]
        runs = [Run(config=config) for config in configs]
        with tqdm(total=len(runs) * options.epochs, bar_format="{l_bar}{bar}| {elapsed} < {remaining}") as bar:
            for index, event in race([(config, None) for config in configs], images):
                runs[index].apply(event)
                bar.n = sum(run.epochs_passed for run in runs)
                bar.refresh()
        write_race(options.output, runs, facts(images), f"python -m scripts.record_race {_without_paths(sys.argv[1:])}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for run in runs:
        print(f"{run.config.optimizer}: {run.history[-1].test_accuracy:.2%} of the test pictures right")


def _without_paths(arguments: list[str]) -> str:
    """Returns the arguments as text, without the paths, which are private: FOLDER for the source, no --output."""
    pairs = zip(["", *arguments], arguments, strict=False)
    kept = [(before, text) for before, text in pairs if "--output" not in (before, text)]
    return shlex.join("FOLDER" if before == "--data" else text for before, text in kept)


if __name__ == "__main__":
    main()
