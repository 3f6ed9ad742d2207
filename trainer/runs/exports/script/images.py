"""The part of a script that reads the images and puts them into a loader."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from trainer.errors import UserError
from trainer.images.address import parse
from trainer.images.readers import CIFAR10_CLASSES, CIFAR10_REPO, SIZE, find_tables
from trainer.images.sources import CIFAR10_REVISION
from trainer.runs.exports.script.formatting import call, literal
from trainer.settings.config import SPLITS, TrainConfig

_MIDDLE = f"return v2.functional.resize(v2.functional.center_crop(pixels, side), [{SIZE}, {SIZE}])"


class ImageSource(NamedTuple):
    """Where a script reads its images."""

    lines: list[str]  # of code that defines load(split), which returns images and labels
    num_classes: str = str(len(CIFAR10_CLASSES))  # as a Python expression
    can_be_uniform: bool = False  # whether a colour channel may be the same in all images


def image_source(data: Mapping[str, Any]) -> ImageSource:
    """Returns the source that the data entry of training.json names.

    Raises UserError if it names none, or a dataset that the Hub cannot have.
    """
    match data.get("source"), data.get("revision"):
        case None | "", _:
            raise UserError("The run does not say which pictures it was trained on.")
        case "own", _:
            raise UserError("This run was trained on someone's own pictures, which a script cannot load.")
        case "hub", _:
            return _cifar10_from_hub()
        case "torchvision", _:
            return _cifar10_from_torchvision()
        case "synthetic", _:
            return _read_by_app("synthetic", "drawn")
        case folder, None:
            if _has_tables(folder):
                return _dataset(literal(folder))
            return _image_folder(folder) if _has_splits(folder) else _read_by_app(folder, "read")
        case address, _:
            dataset = parse(address)
            if dataset and (dataset.config or dataset.label):
                return _read_by_app(address, "read")
            repo_id, _, commit = address.rpartition("@")
            try:
                validate_repo_id(repo_id)
            except HFValidationError:
                raise UserError("The run's pictures come from a dataset whose name is not valid on the Hub.") from None
            return _dataset(f"{literal(repo_id)}, revision={literal(commit)}")


def _cifar10_from_hub() -> ImageSource:
    return ImageSource(
        [
            f'pictures = datasets.load_dataset("{CIFAR10_REPO}", revision="{CIFAR10_REVISION}")',
            "",
            "",
            "def load(split):",
            '    columns = pictures[split].with_format("torch")[:]',
            '    return columns["img"], columns["label"]',
        ]
    )


def _cifar10_from_torchvision() -> ImageSource:
    return ImageSource(
        [
            "def load(split):",
            '    pictures = CIFAR10("data", train=split == "train", download=True)',
            "    return torch.from_numpy(pictures.data).permute(0, 3, 1, 2), torch.tensor(pictures.targets)",
        ]
    )


def _read_by_app(address: str, verb: str) -> ImageSource:
    return ImageSource(
        [
            f"pictures = load_images({literal(address)})  # {verb} by Optimizer Lab: run this script in its folder",
            "",
            "",
            "def load(split):",
            "    part = getattr(pictures, split)",
            "    return part.images, part.labels",
        ],
        str(len(CIFAR10_CLASSES)) if address == "synthetic" else "len(pictures.class_names)",
        can_be_uniform=address != "synthetic",
    )


def _dataset(address: str) -> ImageSource:
    """Returns the source for a dataset: as in the app, its first column of images and its first column of labels."""
    lines = [
        f"pictures = datasets.load_dataset({address})",
        'columns = pictures["train"].features',
        "image = next(name for name in columns if isinstance(columns[name], datasets.Image))",
        "label = next(name for name in columns if isinstance(columns[name], datasets.ClassLabel))",
        "",
        "",
        "def read(picture):  # its middle square",
        '    pixels, side = v2.functional.pil_to_tensor(picture.convert("RGB")), min(picture.size)',
        f"    {_MIDDLE}",
        "",
        "",
        "def load(split):",
        "    images = [read(picture) for picture in pictures[split][image]]",
        "    return torch.stack(images), torch.tensor(pictures[split][label][:])",
    ]
    return ImageSource(lines, "columns[label].num_classes", can_be_uniform=True)


def _image_folder(folder: str) -> ImageSource:
    lines = [
        f"folder = {literal(folder)}",
        "",
        "",
        "def read(file):  # the picture's middle square",
        '    pixels = decode_image(file, "RGB", apply_exif_orientation=True)',
        "    side = min(pixels.shape[1:])",
        f"    {_MIDDLE}",
        "",
        "",
        "def load(split):",
        '    files = ImageFolder(f"{folder}/{split}", loader=read)',
        "    random.Random(0).shuffle(files.samples)  # they are sorted by class",
        "    images, labels = zip(*files)",
        "    return torch.stack(images), torch.tensor(labels)",
    ]
    return ImageSource(lines, "len(test_labels.unique())", can_be_uniform=True)


def _has_tables(folder: str) -> bool:
    try:
        return bool(find_tables(Path(folder)))
    except (OSError, ValueError):  # the folder is gone or not readable, or the text is not a path
        return False


def _has_splits(folder: str) -> bool:
    """Whether a folder has the layout of torchvision's ImageFolder in train and test, or is not on this machine."""
    try:
        path = Path(folder)
        return not path.exists() or all((path / split).is_dir() for split in SPLITS)
    except (OSError, ValueError):
        return True


def load_splits(config: TrainConfig) -> list[str]:
    """Returns lines that load the images and labels to train on and those to test on."""
    first = f"[:{config.num_images}]" if config.num_images else ""
    test = 'test_images, test_labels = load("test")'
    if config.train_split == "test":
        train = f"train_images, train_labels = test_images{first}, test_labels{first}"
        return ["", "", test, f"{train}  # trains on the pictures that it is tested on", *_keep_aside(config)]
    limit = [f"train_images, train_labels = train_images{first}, train_labels{first}"] if first else []
    return ["", "", 'train_images, train_labels = load("train")', *limit, *_keep_aside(config), test]


def _keep_aside(config: TrainConfig) -> list[str]:
    """Returns lines that leave out the images that the holdout keeps aside, as trainer.learning.training_set does."""
    if not config.holdout:
        return []
    share = literal(config.holdout)
    return [
        "# Keeps pictures of each class aside, evenly spaced by their number within the class, from 1.",
        "number = nn.functional.one_hot(train_labels).cumsum(0).gather(1, train_labels[:, None])[:, 0].double()",
        f"kept = (number * {share} + 0.49).floor() == ((number - 1) * {share} + 0.49).floor()",
        "train_images, train_labels = train_images[kept], train_labels[kept]",
    ]


def make_loader(config: TrainConfig) -> list[str]:
    """Returns lines that define the loader, the order of its images and their augmentation."""
    settings = [f"batch_size={config.batch_size or 'len(train_labels)'}"]
    if config.shuffle:
        settings.append("sampler=order")
    if config.drop_last:
        settings.append("drop_last=True")
    order = ["order = np.arange(len(train_labels))  # shuffled before each epoch, exactly as in Optimizer Lab"]
    augmentation = {
        "crop": f'v2.RandomCrop({SIZE}, padding={config.shift}, padding_mode="reflect")' if config.shift else "",
        "flip": "v2.RandomHorizontalFlip()" if config.flip else "",
    }
    used = {name: source for name, source in augmentation.items() if source}
    return [
        *(order if config.shuffle else []),
        *call("loader = DataLoader", ["TensorDataset(train_images, train_labels)", *settings]),
        *([f"{', '.join(used)} = {', '.join(used.values())}"] if used else []),
    ]
