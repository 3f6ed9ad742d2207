"""Compares the speed of float32, bfloat16 and float16 matrix products in an epoch of each network.

Images per second are those of the run's history; float16 is measured only on GPUs.
"""

from dataclasses import replace

from benchmarks.report import in_turns, machine, options, report, run
from benchmarks.training import images_per_second
from trainer.images.image_data import load_images, subset
from trainer.learning.device import allow_tf32, choose_device
from trainer.settings.config import MODELS, TrainConfig


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: the fastest available")
    parser.add_argument("--num-images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, after a warm-up")
    args = parser.parse_args()
    device = choose_device(args.device)
    allow_tf32(device)
    data = load_images(args.data)
    small_test = replace(data, test=subset(data.test, 100))
    others = ["bfloat16", "float16"] if device.type == "cuda" else ["bfloat16"]
    rows: dict[str, list[float]] = {}
    for model in MODELS:
        own = TrainConfig(model=model, epochs=1, batch_size=args.batch_size, num_images=args.num_images)
        configs = {precision: own.changed({"precision": precision}) for precision in ("float32", *others)}
        variants = {
            precision: lambda _, config=config: images_per_second(config, small_test, device)
            for precision, config in configs.items()
        }
        for variant in variants.values():
            variant(0)  # warm-up
        speeds = in_turns(variants, args.rounds, args.seed)
        rows[f"{model}, float32, images/s"] = speeds["float32"]
        for precision in others:
            pairs = zip(speeds[precision], speeds["float32"], strict=True)
            rows[f"{model}, {precision}, times as fast"] = [half / whole for half, whole in pairs]
    report("precision", rows, on=machine(device.type), to=args.json, batch_size=args.batch_size, pictures=data.note)


if __name__ == "__main__":
    run(main)
