"""Compares the app's loop with a plain one on a GPU, for both networks, and measures the accuracy they reach.

The plain loop is the tutorial's: a DataLoader over pictures in memory that moves each batch to the device and reads
back each loss. Both train the same network with the same settings, in different orders. GPU utilization is the time of
the kernels in a run of one epoch, evaluations included, from torch's profiler, divided by the time of such a run
without the profiler. The accuracy is that of each network's own settings: the default, and those of the bundled `fast`.
"""

import math
import time
from dataclasses import replace

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.report import in_turns, machine, options, report, run
from benchmarks.training import epochs, images_per_second
from trainer.images.image_data import ImageData, load_images, subset
from trainer.learning.device import allow_tf32, choose_device
from trainer.learning.learner import build_model
from trainer.settings.config import MODELS, TrainConfig

_SETTINGS = {
    "quick": {},
    "fast": {"lr": 0.1, "nesterov": True, "batch_size": 128, "label_smoothing": 0.1, "precision": "bfloat16"},
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tests the benchmark itself")
    parser.add_argument("--num-images", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=64, help="for images per second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12, help="for the accuracy")
    parser.add_argument("--wanted", type=float, default=0.9, help="the accuracy for which the time is measured")
    args = parser.parse_args()
    device = choose_device(args.device)
    allow_tf32(device)
    data = load_images(args.data)
    small_test = replace(data, test=subset(data.test, 500))
    rows: dict[str, list[float]] = {}
    for model in MODELS:
        speed = TrainConfig(
            model=model, epochs=1, batch_size=args.batch_size, num_images=args.num_images, flip=False, shift=0
        )
        variants = {
            "app": lambda _, config=speed: images_per_second(config, small_test, device),
            "plain loop": lambda _, config=speed: _plain(config, data, device),
        }
        for variant in variants.values():
            variant(0)  # warm-up
        measured = in_turns(variants, args.rounds, args.seed)
        rows |= {f"{model}, {variant}, images/s": values for variant, values in measured.items()}
        pairs = zip(measured["app"], measured["plain loop"], strict=True)
        rows[f"{model}, times as fast"] = [ours / plain for ours, plain in pairs]
        if args.device == "cuda":
            rows[f"{model}, GPU busy"] = [_busy(speed, small_test, device)]
        own = TrainConfig(model=model, epochs=args.epochs).changed(_SETTINGS[model])
        ends = [_accuracy(own.changed({"seed": seed}), data, device, args.wanted) for seed in range(args.rounds)]
        rows[f"{model}, seconds to {args.wanted:.0%}"] = [seconds for seconds, _ in ends]
        rows[f"{model}, accuracy at the end"] = [accuracy for _, accuracy in ends]
    report("gpu", rows, on=machine(args.device), to=args.json, batch_size=args.batch_size, pictures=data.note)


def _plain(config: TrainConfig, data: ImageData, device: torch.device) -> float:
    """Returns the images per second of an epoch of the plain loop."""
    split = subset(data.train, config.num_images)
    pictures = TensorDataset(split.images.contiguous().float() / 255, split.labels)
    network = build_model(config, data, data.train).network.to(device, memory_format=torch.contiguous_format)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), **config.row_settings["optimizer"])
    start = time.perf_counter()
    for images, labels in DataLoader(pictures, batch_size=config.batch_size, shuffle=True):
        images, labels = images.to(device), labels.to(device)
        loss = loss_function(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return len(split.labels) / (time.perf_counter() - start)


def _busy(config: TrainConfig, data: ImageData, device: torch.device) -> float:
    """Returns the fraction of a run's epochs, 0–1, in which the GPU computes."""
    seconds = sum(epoch.seconds for epoch in epochs(config, data, device))
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        list(epochs(config, data, device))
    kernels = [event for event in seen.key_averages() if not event.key.startswith(("Memcpy", "Memset"))]
    return sum(event.self_device_time_total for event in kernels if not event.is_user_annotation) / 1e6 / seconds


def _accuracy(config: TrainConfig, data: ImageData, device: torch.device, wanted: float) -> tuple[float, float]:
    """Returns the seconds to a test accuracy of `wanted`, evaluation included, and the accuracy at the end."""
    seconds, reached = 0.0, math.inf
    for epoch in epochs(config, data, device):
        seconds += epoch.seconds
        if epoch.test_accuracy >= wanted:
            reached = min(reached, seconds)
    return reached, epoch.test_accuracy


if __name__ == "__main__":
    run(main)
