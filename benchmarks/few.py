"""Trains on 2 × 50 drawn pictures like those of a webcam, a red mug or a blue book, and tests on 400 new ones.

The settings are those that the page suggests for so few pictures, and the same from random weights.
"""

import random
import time

import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from benchmarks.report import in_turns, machine, options, report, run
from trainer.images.image_data import ImageData, from_pictures
from trainer.images.readers import Pictures
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.settings.presets import FIRST
from ui.tabs.train.setup.pictures import suited_settings

_LARGE = 128  # pixels, in which a picture is drawn before it is made smaller


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each, each with another seed")
    args = parser.parse_args()
    starts = ("frozen", "finetuned", "none")
    results = in_turns(
        {start: lambda number, start=start: measure(start, number) for start in starts}, args.rounds, args.seed
    )
    rows = {}
    for start, measured in results.items():
        seconds, accuracies = zip(*measured, strict=True)
        rows |= {f"pretrained {start}: seconds": seconds, f"pretrained {start}: accuracy": accuracies}
    report("few", rows, on=machine(), to=args.json)


def measure(start: str, seed: int) -> tuple[float, float]:
    """Returns the seconds of a training, and the share of new pictures that it then recognises."""
    images = mugs_and_books(100, 400, seed=seed)
    config = FIRST.changed({**suited_settings(images), "pretrained": start, "seed": seed})
    started = time.perf_counter()
    *_, last = (event for event in train(config, images) if isinstance(event, EpochEnded))
    return time.perf_counter() - started, last.test_accuracy


def mugs_and_books(num_train: int, num_test: int, *, seed: int) -> ImageData:
    """Returns a set of drawn pictures, half of them of each class."""
    splits = (_drawn(num, random.Random(2 * seed + is_new)) for is_new, num in enumerate((num_train, num_test)))
    return from_pictures(Pictures("mugs and books", ("mug", "book"), *splits), source="drawn", revision=None)


def _drawn(num: int, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Returns pictures, uint8 [num, 32, 32, 3], and their labels, int64 [num]."""
    noise = torch.Generator().manual_seed(rng.randrange(2**31))
    labels = torch.arange(num) % 2
    pictures = torch.stack([_picture(is_book, rng) for is_book in labels.tolist()]).float()
    return (pictures + 12 * torch.randn(pictures.shape, generator=noise)).clamp(0, 255).byte(), labels


def _picture(is_book: int, rng: random.Random) -> Tensor:
    """Returns a mug or a book at a random place, in front of a wall with a shelf, uint8 [32, 32, 3]."""
    light = rng.uniform(0.6, 1.2)

    def lit(*colour: int) -> tuple[int, ...]:
        return tuple(min(255, round(light * (value + rng.uniform(-15, 15)))) for value in colour)

    room = Image.new("RGB", (_LARGE, _LARGE), lit(170, 165, 155))
    draw = ImageDraw.Draw(room)
    for _ in range(4):  # other things, of any colour, as they are in every room
        left, top = rng.randrange(_LARGE), rng.randrange(_LARGE)
        place = (left, top, left + rng.randrange(5, 40), top + rng.randrange(5, 40))
        draw.rectangle(place, fill=lit(*(rng.randrange(256) for _ in range(3))))
    thing, height = Image.new("RGBA", (_LARGE, _LARGE)), rng.randrange(40, 70)
    draw, middle, width = ImageDraw.Draw(thing), _LARGE // 2, round(0.7 * height)
    left, top, right, bottom = middle - width // 2, middle - height // 2, middle + width // 2, middle + height // 2
    if is_book:
        draw.rectangle((left, top, right, bottom), lit(30, 60, 170))
        draw.rectangle((right - 4, top, right, bottom), lit(230, 230, 220))  # its pages
    else:
        draw.ellipse((middle, middle - height // 4, middle + width, middle + height // 4), None, lit(170, 30, 35), 6)
        draw.rectangle((left, top, right, bottom), lit(190, 35, 40))
        draw.ellipse((left, top - 6, right, top + 6), lit(90, 20, 25))
    thing = thing.rotate(rng.uniform(-20, 20))
    room.paste(thing, (rng.randrange(-30, 31), rng.randrange(-30, 31)), thing)
    small = room.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))).resize((32, 32), Image.Resampling.BILINEAR)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(32, 32, 3)


if __name__ == "__main__":
    run(main)
