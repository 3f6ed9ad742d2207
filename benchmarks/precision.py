"""Where mixed precision pays: an epoch of each network with its matrix products in float32, bfloat16 and float16.

Images per second are those of the app's own history; float16 is for GPUs alone.
"""

from dataclasses import replace
from functools import partial

import torch

from benchmarks.report import device_named, in_turns, machine, options, report
from trainer.config import MODELS, TrainConfig
from trainer.data import ImageData, load_images, subset
from trainer.events import EpochEnded
from trainer.loop import train


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: the fastest there is")
    parser.add_argument("--num-images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured, after one that is not")
    asked = parser.parse_args()
    device = device_named(asked.device)
    data = load_images(asked.data)
    few = replace(data, test=subset(data.test, 100))
    others = ["bfloat16", "float16"] if device.type == "cuda" else ["bfloat16"]
    rows: dict[str, list[float]] = {}
    for model in MODELS:
        config = TrainConfig(model=model, epochs=1, batch_size=asked.batch_size, num_images=asked.num_images)
        ways = {
            precision: partial(_speed, config.changed({"precision": precision}), few, device)
            for precision in ("float32", *others)
        }
        for way in ways.values():
            way(0)  # warms the device up
        speeds = in_turns(ways, asked.rounds, asked.seed)
        rows[f"{model}, float32, images/s"] = speeds["float32"]
        for precision in others:
            pairs = zip(speeds[precision], speeds["float32"], strict=True)
            rows[f"{model}, {precision}, times as fast"] = [half / whole for half, whole in pairs]
    report("precision", rows, on=machine(device.type), to=asked.json, batch_size=asked.batch_size, pictures=data.note)


def _speed(config: TrainConfig, data: ImageData, device: torch.device, turn: int) -> float:
    """Images per second of an epoch."""
    *_, epoch = (event for event in train(config, data, device=device) if isinstance(event, EpochEnded))
    return epoch.images_per_second


if __name__ == "__main__":
    main()
