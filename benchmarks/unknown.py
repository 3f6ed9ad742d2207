"""Counts the pictures of none of the classes whose answer is unsure, for the networks that come with the app.

A network takes every picture for one of its classes. An answer is unsure if its probability is below UNSURE_BELOW.
"""

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.report import machine, options, report, run
from trainer.images.image_data import load_images
from trainer.insight.mistakes import sample
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import UNSURE_BELOW

_SHARE_SURE = 0.95  # of the test pictures, for the threshold in the report


def main() -> None:
    parser = options(__doc__, has_order=False)
    parser.add_argument("--num-images", type=int, default=1000, help="of each kind; twice as many test pictures")
    args = parser.parse_args()
    data = load_images(args.data)
    kinds = {
        "test pictures": sample(data, 2 * args.num_images).test.images,
        "noise": noise(args.num_images, side=32),
        "smooth noise": noise(args.num_images, side=5),
        "one colour": noise(args.num_images, side=1),
        "drawn shapes": load_images("synthetic").test.images[: args.num_images],
        "letters": letters(args.num_images),
    }
    rows: dict[str, list[float]] = {}
    for name in ("quick", "fast"):
        model = OptimizerLabModel.from_pretrained(f"checkpoints/{name}")
        confidences = {kind: confidences_of(model, pictures) for kind, pictures in kinds.items()}
        rows |= {f"{name}, {kind}: confidence": found.tolist() for kind, found in confidences.items()}
        for kind, found in confidences.items():
            rows[f"{name}, {kind}: share of unsure answers"] = [(found < UNSURE_BELOW).float().mean().item()]
        threshold = confidences["test pictures"].quantile(1 - _SHARE_SURE).item()
        rows[f"{name}: the threshold that {_SHARE_SURE:.0%} of the test pictures exceed"] = [threshold]
    report("unknown", rows, on=machine(), to=args.json, unsure_below=UNSURE_BELOW, pictures=data.note)


def confidences_of(model: OptimizerLabModel, pictures: Tensor) -> Tensor:
    """Returns the probability of the likeliest class of each picture, float32 [n]."""
    return torch.cat([model.probabilities(some).amax(1) for some in pictures.split(250)])


def noise(count: int, *, side: int) -> Tensor:
    """Returns pictures with `side` independent random colours along each side, uint8 [count, 3, 32, 32]."""
    colors = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(side))
    return torch.nn.functional.interpolate(colors, size=32, mode="bicubic").clamp(0, 1).mul(255).byte()


def letters(count: int) -> Tensor:
    """Returns pictures of a letter in a random colour on another one, uint8 [count, 3, 32, 32]."""
    colors = torch.randint(256, (count, 2, 3), generator=torch.Generator().manual_seed(0)).tolist()
    font, drawn = ImageFont.load_default(24), []
    for number, (paper, ink) in enumerate(colors):
        picture = Image.new("RGB", (32, 32), tuple(paper))
        letter = chr(ord("A") + number % 26)
        ImageDraw.Draw(picture).text((16, 16), letter, fill=tuple(ink), font=font, anchor="mm")
        drawn.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(32, 32, 3).permute(2, 0, 1))
    return torch.stack(drawn)


if __name__ == "__main__":
    run(main)
