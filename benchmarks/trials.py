"""Measures the effect of each default setting: trains with the defaults, and with one setting changed.

The result is the test accuracy at the end. A change of `batch_size` changes `lr` in proportion.
"""

from functools import partial
from typing import Any

from benchmarks.report import in_turns, machine, options, report, run
from benchmarks.training import epochs
from trainer.images.image_data import ImageData, load_images
from trainer.settings.config import TrainConfig

_CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"lr": 0.005},
    {"lr": 0.05},
    {"weight_decay": 0.0},
    {"scheduler": "constant"},
    {"scheduler": "cosine"},
    {"optimizer": "adam"},
    {"optimizer": "adamw"},
    {"batch_size": 128, "lr": 0.04},
    {"flip": False, "shift": 0},
    {"label_smoothing": 0.1},
    {"normalize": False},
)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1, help="seeds for each")
    args = parser.parse_args()
    data = load_images(args.data)
    trials = {_name(changes): TrainConfig().changed({"epochs": args.epochs, **changes}) for changes in _CHANGES}
    variants = {name: partial(_trained, name, trial, data) for name, trial in trials.items()}
    accuracies = in_turns(variants, args.rounds, args.seed)
    report("trials", accuracies, on=machine(), to=args.json, epochs=args.epochs, pictures=data.note)


def _name(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "the default"


def _trained(name: str, config: TrainConfig, data: ImageData, seed: int) -> float:
    """Returns the test accuracy at the end of a training, and prints it."""
    trained = list(epochs(config.changed({"seed": seed}), data))
    accuracy, seconds = trained[-1].test_accuracy, sum(epoch.seconds for epoch in trained)
    print(f"{name}, seed {seed}: {accuracy:.2%} in {seconds:.0f} s", flush=True)
    return accuracy


if __name__ == "__main__":
    run(main)
