"""Small image sets for tests: random pictures, and folders of them in both layouts that can be loaded."""

import itertools
from pathlib import Path

import torch
from torchvision.io import encode_jpeg, encode_png

from trainer.images.image_data import Split

_PETS = {"train/cat": 2, "train/dog": 3, "test/cat": 1, "test/dog": 1}


def noise(num: int, *, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Random pictures, all different, uint8 [num, 3, height, width]."""
    return torch.randint(256, (num, 3, height, width), generator=torch.Generator().manual_seed(seed)).byte()


def png(picture: torch.Tensor) -> bytes:
    return encode_png(picture).numpy().tobytes()


def jpeg(picture: torch.Tensor) -> bytes:
    return encode_jpeg(picture).numpy().tobytes()


def draw_arrows(num: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Arrows at random places that point left (0) or right (1): uint8 [num, 32, 32, 3], int64 [num]."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 2
    down, across, length, grey = (
        torch.randint(low, high, (num, 1, 1), generator=rng) for low, high in ((10, 22), (12, 20), (7, 11), (0, 100))
    )
    y, x = (torch.arange(32).view(shape) for shape in ((1, 32, 1), (1, 1, 32)))
    along = (x - across) * (2 * labels - 1).view(-1, 1, 1)  # pixels from the middle, towards the tip
    aside = (y - down).abs()
    inside = ((along.abs() <= length) & (aside <= 1)) | (
        (along <= length) & (along >= length - 6) & (aside <= length - along)
    )
    picture = torch.where(inside, 255 - grey, grey) + torch.randint(-20, 20, (num, 32, 32), generator=rng)
    return picture.clamp(0, 255).byte()[..., None].repeat(1, 1, 1, 3), labels


def numbered_split(images: torch.Tensor) -> Split:
    """A split whose labels are the images' indices."""
    images = images.contiguous(memory_format=torch.channels_last)
    return Split(images=images, labels=torch.arange(len(images)))


def write_image_folder(folder: Path, classes: dict[str, list[bytes]]) -> Path:
    """Writes an image folder with files 0, 1, … in each `split/class`."""
    for name, files in classes.items():
        (folder / name).mkdir(parents=True)
        for number, content in enumerate(files):
            (folder / name / str(number)).write_bytes(content)
    return folder


def write_pets(folder: Path, **more: list[bytes]) -> Path:
    """Writes an image folder of cats and dogs: 5 training and 2 test pictures."""
    seeds = itertools.count()
    classes = {name: [png(noise(1, seed=next(seeds))[0]) for _ in range(num)] for name, num in _PETS.items()}
    return write_image_folder(folder, {**classes, **more})


def write_dataset(
    folder: Path,
    pictures: dict[str, list[bytes | None]],
    *,
    class_names: tuple[str, ...] = ("cat", "dog"),
    labels: list[int | None] | None = None,
    image: str = "img",
) -> Path:
    """Writes a folder laid out as `push_to_hub` lays out a repository: one Parquet file for each split."""
    import datasets

    features = datasets.Features({image: datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))})
    (folder / "plain_text").mkdir(parents=True)
    for split, files in pictures.items():
        column = [content and {"bytes": content, "path": None} for content in files]
        split_labels = labels or [number % len(class_names) for number in range(len(files))]
        rows = datasets.Dataset.from_dict({image: column, "label": split_labels[: len(files)]}, features=features)
        rows.to_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet")
    return folder
