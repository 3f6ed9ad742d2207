"""What each of the default settings is good for: trained as they are, and with one thing changed, on the same pictures.

Told is the part of the test pictures that is right at the end. A change of `batch_size` brings an lr in proportion.
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
    {"augment": False},
    {"label_smoothing": 0.1},
    {"normalize": False},
)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1, help="seeds for each")
    asked = parser.parse_args()
    data = load_images(asked.data)
    trials = {_name(changes): TrainConfig().changed({"epochs": asked.epochs, **changes}) for changes in _CHANGES}
    ways = {name: partial(_trained, name, trial, data) for name, trial in trials.items()}
    right = in_turns(ways, asked.rounds, asked.seed)
    report("trials", right, on=machine(), to=asked.json, epochs=asked.epochs, pictures=data.note)


def _name(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "the default"


def _trained(name: str, config: TrainConfig, data: ImageData, seed: int) -> float:
    """The test accuracy at a training's end, which it also tells."""
    trained = list(epochs(config.changed({"seed": seed}), data))
    accuracy, seconds = trained[-1].test_accuracy, sum(epoch.seconds for epoch in trained)
    print(f"{name}, seed {seed}: {accuracy:.2%} in {seconds:.0f} s", flush=True)
    return accuracy


if __name__ == "__main__":
    run(main)
