"""A run's settings as a plain PyTorch script: the tutorial's loop, for a beginner to read and run."""

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from trainer.errors import UserError
from trainer.images.batches import PADDING
from trainer.images.readers import CIFAR10_CLASSES, CIFAR10_REPO, SIZE, find_tables
from trainer.images.sources import CIFAR10_REVISION
from trainer.learning import optimizers, schedulers
from trainer.networks.architectures import FAST_LAYERS
from trainer.settings.config import TrainConfig

WIDTH = 110
"""The longest line of a script, unless one name in it is longer."""

# The imports in their order: what uses each, and the packages to be installed for it.
_IMPORTS = (
    (r"\bhashlib\.", "import hashlib", ""),
    (r"\brandom\.Random\b", "import random", ""),
    ("", "", ""),
    (r"\bdatasets\.", "import datasets", "datasets pillow"),
    (r"\bnp\.", "import numpy as np", "numpy"),
    (r"\btorch\.", "import torch", "torch"),
    (r"\bnn\.", "from torch import nn", "torch"),
    (r"\bDataLoader\(", "from torch.utils.data import DataLoader, TensorDataset", "torch"),
    (r"\bCIFAR10\(", "from torchvision.datasets import CIFAR10", "torchvision"),
    (r"\bImageFolder\(", "from torchvision.datasets import ImageFolder", "torchvision"),
    (r"\bdecode_image\(", "from torchvision.io import decode_image", "torchvision"),
    (r"\bv2\.", "from torchvision.transforms import v2", "torchvision"),
    (r"\bload_images\(", "from trainer import load_images", "-r requirements.txt"),
)
_MIDDLE = f"return v2.functional.resize(v2.functional.center_crop(pixels, side), [{SIZE}, {SIZE}])"


def as_code(config: TrainConfig, data: Mapping[str, Any]) -> str:
    """A script's source that trains as `config` says: on the CPU, or for float16 on a CUDA GPU.

    `data` is what trainer.images.image_data.facts tells and training.json keeps. Only its source and revision are used;
    they may come from a stranger, and nothing in them becomes code. Whether a folder holds Parquet files is looked up
    on this machine's disk, and the script names the folder by its path.

    Without `augment` the script prints the losses and the accuracy of train(), up to float32's rounding: it has the
    same first weights, pictures and order. Where the loss becomes no number it goes on, though train() stops. It does
    not know that a run went on with other settings halfway; and of a folder's pictures it reads neither GIF nor, as
    the app does, what is transparent as white.

    Raises ValueError where `data` names no source, or a dataset that the Hub cannot have.
    """
    pictures = _pictures(data)
    learner = [*_network(config, pictures), *_loss(config), *_optimizer(config), *_scheduler(config)]
    body = "\n".join([*pictures.lines, *_splits(config), *_loader(config), "", *learner, "", *_loop(config)])
    used = [(line, needs) for pattern, line, needs in _IMPORTS if re.search(pattern, body)]
    imports = "\n".join(line for line, _ in used).strip()
    gap = "\n\n\n" if body.startswith("def ") else "\n\n"
    packages = " ".join(sorted({needs for _, needs in used if needs}))
    head = f"# {_title(config)}, set as in Optimizer Lab, in plain PyTorch.\n# pip install {packages}\n"
    return f"{head}{imports}{gap}{body}\n"


class _Pictures(NamedTuple):
    """Where a script's pictures come from: lines that define load(split), and what stands for the number of classes.

    Of pictures that are anyone's, a colour may be the same everywhere.
    """

    lines: list[str]
    num_classes: str = str(len(CIFAR10_CLASSES))
    are_anyones: bool = False


def _pictures(data: Mapping[str, Any]) -> _Pictures:
    match data.get("source"), data.get("revision"):
        case None | "", _:
            raise UserError("It is not known which pictures these settings are for.")
        case "hub", _:
            return _cifar10_of_hub()
        case "torchvision", _:
            return _cifar10_of_torchvision()
        case "synthetic", _:
            return _drawn_shapes()
        case folder, None:
            return _dataset(_literal(folder)) if _has_tables(folder) else _image_folder(folder)
        case address, _:
            repo_id, _, commit = address.rpartition("@")
            try:
                validate_repo_id(repo_id)
            except HFValidationError:
                raise UserError("These pictures are said to come from the Hub, which has no such names.") from None
            return _dataset(f"{_literal(repo_id)}, revision={_literal(commit)}")


def _cifar10_of_hub() -> _Pictures:
    return _Pictures(
        [
            f'pictures = datasets.load_dataset("{CIFAR10_REPO}", revision="{CIFAR10_REVISION}")',
            "",
            "",
            "def load(split):",
            '    columns = pictures[split].with_format("torch")[:]',
            '    return columns["img"], columns["label"]',
        ]
    )


def _cifar10_of_torchvision() -> _Pictures:
    return _Pictures(
        [
            "def load(split):",
            '    pictures = CIFAR10("data", train=split == "train", download=True)',
            "    return torch.from_numpy(pictures.data).permute(0, 3, 1, 2), torch.tensor(pictures.targets)",
        ]
    )


def _drawn_shapes() -> _Pictures:
    return _Pictures(
        [
            'pictures = load_images("synthetic")  # drawn by Optimizer Lab: run this script in its folder',
            "",
            "",
            "def load(split):",
            "    part = getattr(pictures, split)",
            "    return part.images, part.labels",
        ]
    )


def _dataset(address: str) -> _Pictures:
    """Any dataset with a column of pictures and one of labels: the first of each is taken, as the app does."""
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
    return _Pictures(lines, "columns[label].num_classes", are_anyones=True)


def _image_folder(folder: str) -> _Pictures:
    lines = [
        f"folder = {_literal(folder)}",
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
        "    random.Random(0).shuffle(files.samples)  # or all pictures of a class would follow each other",
        "    images, labels = zip(*files)",
        "    return torch.stack(images), torch.tensor(labels)",
    ]
    return _Pictures(lines, "len(test_labels.unique())", are_anyones=True)


def _has_tables(folder: str) -> bool:
    try:
        return bool(find_tables(Path(folder)))
    except (OSError, ValueError):  # gone, not ours to read, or no path at all
        return False


def _splits(config: TrainConfig) -> list[str]:
    first = f"[:{config.num_images}]" if config.num_images else ""
    test = 'test_images, test_labels = load("test")'
    if config.train_split == "test":
        again = f"train_images, train_labels = test_images{first}, test_labels{first}"
        return ["", "", test, f"{again}  # it learns from the pictures it is tested on"]
    cut = [f"train_images, train_labels = train_images{first}, train_labels{first}"] if first else []
    return ["", "", 'train_images, train_labels = load("train")', *cut, test]


def _loader(config: TrainConfig) -> list[str]:
    settings = [f"batch_size={config.batch_size}"]
    if config.shuffle:
        settings.append("sampler=order")
    if config.drop_last:
        settings.append("drop_last=True")
    order = ["order = np.arange(len(train_labels))  # shuffled before each epoch, just as Optimizer Lab does it"]
    crop = f'v2.RandomCrop({SIZE}, padding={PADDING}, padding_mode="reflect")'
    augment = [f"crop, flip = {crop}, v2.RandomHorizontalFlip()"]
    return [
        *(order if config.shuffle else []),
        *_call("loader = DataLoader", ["TensorDataset(train_images, train_labels)", *settings]),
        *(augment if config.augment else []),
    ]


def _network(config: TrainConfig, pictures: _Pictures) -> list[str]:
    is_fast = config.model == "fast"
    layers = [
        *(["v2.Normalize((mean / 255).tolist(), (std / 255).tolist())"] if config.normalize else []),
        *(_fast(pictures.num_classes) if is_fast else _quick(config, pictures.num_classes)),
        *(["nn.Softmax(dim=1)"] if config.softmax else []),
    ]
    # In float64, because the app has them exactly: what their last digit is off grows with every step.
    statistics = ["std, mean = torch.std_mean(train_images.double(), (0, 2, 3), correction=0)  # of each colour"]
    if pictures.are_anyones:
        statistics.append("std = std.clamp(min=0.255)  # a colour that is the same everywhere has none")
    device = '"cuda", ' if config.precision == "float16" else ""
    return [
        *(_block(config) if is_fast else []),
        f"torch.manual_seed({config.seed})",
        *(statistics if config.normalize else []),
        *_call("network = nn.Sequential", layers),
        *(_first_filters(f"network[{int(config.normalize)}][0]") if is_fast else []),
        f"network.to({device}memory_format=torch.channels_last)  # the weights, laid out in memory for speed",
    ]


# The modules that draw weights stand in the order of trainer.networks.architectures, which is the order of their draws.
def _quick(config: TrainConfig, num_classes: str) -> list[str]:
    act = {"none": "", "relu": "nn.ReLU(), "}[config.activation]
    return [
        f"nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), {act}nn.MaxPool2d(2))",
        f"nn.Sequential(nn.Conv2d(32, 32, 5, padding=2), {act}nn.MaxPool2d(2))",
        f"nn.Sequential(nn.Conv2d(32, 64, 5, padding=2), {act}nn.MaxPool2d(2))",
        f"nn.Sequential(nn.Flatten(), nn.Linear({64 * (SIZE // 8) ** 2}, 64), {act}nn.Linear(64, {num_classes}))",
    ]


def _fast(num_classes: str) -> list[str]:
    blocks, width = [], 3
    for wider, pool in FAST_LAYERS:
        blocks.append(f"block({width}, {wider}{', nn.MaxPool2d(2)' if pool else ''})")
        width = wider
    return [*blocks, f"nn.Sequential(nn.MaxPool2d({SIZE // 8}), nn.Flatten(), nn.Linear({width}, {num_classes}))"]


def _block(config: TrainConfig) -> list[str]:
    layers = ["nn.Conv2d(width, wider, 3, padding=1, bias=False)", "*pool", "nn.BatchNorm2d(wider)"]
    layers += {"none": [], "relu": ["nn.ReLU()"]}[config.activation]
    return ["", "def block(width, wider, *pool):", *_indented(_call("return nn.Sequential", layers)), "", ""]


def _first_filters(layer: str) -> list[str]:
    """What trainer.networks.architectures.cosine_filters gives, as lines."""
    return [
        "# The first filters: waves in grey and in two differences of colours, and each with its sign turned.",
        "cosines = torch.cos(torch.pi / 3 * torch.outer(torch.arange(3), torch.arange(3) + 0.5))",
        'waves = torch.einsum("uh,vw->uvhw", cosines, cosines)',
        "grey, colour = waves.flatten(0, 1)[:8], waves[:2, :2].flatten(0, 1)",
        "parts = ([1.0, 1.0, 1.0], grey), ([1.0, 0.0, -1.0], colour), ([1.0, -2.0, 1.0], colour)",
        'filters = torch.cat([torch.einsum("c,nhw->nchw", torch.tensor(mix), some) for mix, some in parts])',
        "filters /= torch.linalg.vector_norm(filters, dim=(1, 2, 3), keepdim=True)",
        f"{layer}.weight.data.copy_(torch.cat([filters, -filters]))",
    ]


def _loss(config: TrainConfig) -> list[str]:
    smoothing = f"label_smoothing={config.label_smoothing}" if config.label_smoothing else ""
    return [f"loss_function = nn.CrossEntropyLoss({smoothing})"]


def _optimizer(config: TrainConfig) -> list[str]:
    kind = optimizers.CLASSES[config.optimizer]
    # A warm-up climbs to the optimizer's lr, and cyclic begins at its bottom.
    lr = _bottom(config) if config.scheduler == "cyclic" else config.lr
    settings = {"lr": _literal(lr), **_not_default(kind, config.row_settings["optimizer"], without=("lr",))}
    scaler = ['scaler = torch.amp.GradScaler("cuda")'] if config.precision == "float16" else []
    return [*_call(f"optimizer = torch.optim.{kind.__name__}", ["network.parameters()", *_named(settings)]), *scaler]


def _scheduler(config: TrainConfig) -> list[str]:
    if not _is_scheduled(config):
        return []
    kind, settings, steps = (
        schedulers.CLASSES[config.scheduler].__name__,
        _main_schedule(config),
        config.num_warmup_steps,
    )
    if not steps:
        return _schedule("scheduler", kind, settings)
    climb = {"start_factor": _literal(schedulers.WARMUP_START), "total_iters": _literal(steps)}
    if config.scheduler == "constant":
        return _schedule("scheduler", "LinearLR", climb)
    return [
        *_schedule("warmup", "LinearLR", climb),
        *_schedule("main", kind, settings),
        *_schedule("scheduler", "SequentialLR", {"schedulers": "[warmup, main]", "milestones": f"[{steps}]"}),
    ]


def _schedule(name: str, kind: str, settings: Mapping[str, str]) -> list[str]:
    return _call(f"{name} = torch.optim.lr_scheduler.{kind}", ["optimizer", *_named(settings)])


def _main_schedule(config: TrainConfig) -> dict[str, str]:
    """The schedule's settings without its warm-up, as source; what depends on the run's length as expressions."""
    settings, computed = config.row_settings["scheduler"], {}
    match config.scheduler:
        case "onecycle":
            computed = {"max_lr": _literal(config.lr), "total_steps": _num_steps(config)}
        case "cosine" if config.T_max is None:
            computed = {"T_max": _num_steps(config)}
        case "linear" if config.total_iters is None:
            computed = {"total_iters": _num_steps(config)}
        case "cyclic":
            computed = {"base_lr": _literal(_bottom(config)), "max_lr": _literal(config.lr)}
            if config.step_size_up is None:
                computed["step_size_up"] = _two_epochs(config)
            if config.mode == "triangular2":
                # torch's own overflows after a thousand cycles.
                computed |= {"mode": _literal("triangular2"), "scale_fn": "lambda cycle: 0.5 ** (cycle - 1)"}
    return {**computed, **_not_default(schedulers.CLASSES[config.scheduler], settings, without=computed)}


def _bottom(config: TrainConfig) -> float:
    return config.lr / 4 if config.base_lr is None else config.base_lr


def _num_steps(config: TrainConfig) -> str:
    """How often scheduler.step() is called after the warm-up."""
    if config.scheduler_unit == "epoch":
        return str(config.epochs - config.num_warmup_steps)
    batches = "len(loader)" if config.epochs == 1 else f"{config.epochs} * len(loader)"
    steps = f"{batches} // {config.zero_grad_every}" if config.zero_grad_every > 1 else batches
    return f"{steps} - {config.num_warmup_steps}" if config.num_warmup_steps else steps


def _two_epochs(config: TrainConfig) -> str:
    if config.scheduler_unit == "epoch":
        return "2"
    every = config.zero_grad_every
    return f"max(1, round(2 * len(loader) / {every}))" if every > 1 else "2 * len(loader)"


def _loop(config: TrainConfig) -> list[str]:
    order = [
        f'seed = int(hashlib.sha256(f"{config.seed}/{{epoch}}".encode()).hexdigest(), 16)',
        "order[:] = np.random.default_rng(seed).permutation(len(order))",
    ]
    steps_here = _is_scheduled(config) and config.scheduler_unit == "epoch" and config.scheduler != "plateau"
    epoch = [
        *(order if config.shuffle else []),
        *(["network.train()"] if config.model == "fast" else []),
        "loss_sum = 0.0",
        "for images, labels in loader:",
        *_indented([*_forward(config), *_backward(config), "loss_sum += loss.item()"]),
        *(["scheduler.step()"] if steps_here else []),
        'print(f"epoch {epoch}: train loss {loss_sum / len(loader):.4f}, sum of batch losses {loss_sum:.4f}")',
        *_test(config),
    ]
    count = ["step = 0"] if config.zero_grad_every > 1 else []
    return [*count, f"for epoch in range(1, {config.epochs + 1}):", *_indented(epoch)]


def _forward(config: TrainConfig) -> list[str]:
    before, lines = [], ["outputs = network(images / 255)", "loss = loss_function(outputs, labels)"]
    if config.augment:
        before.append("# At random, though not as in Optimizer Lab: the losses differ a little from its own.")
        before.append("images = torch.stack([flip(crop(image)) for image in images])")
    if config.precision == "float16":
        before.append("images, labels = images.cuda(), labels.cuda()")
    if config.precision != "float32":
        device = "cuda" if config.precision == "float16" else "cpu"
        lines = [f'with torch.autocast("{device}", torch.{config.precision}):', *_indented(lines)]
    return [*before, *lines]


def _backward(config: TrainConfig) -> list[str]:
    every = config.zero_grad_every
    loss = f"loss / {every}" if every > 1 else "loss"
    if config.precision == "float16":
        backward, step = f"scaler.scale({loss}).backward()", ["scaler.step(optimizer)", "scaler.update()"]
    else:
        backward, step = f"({loss}).backward()" if every > 1 else "loss.backward()", ["optimizer.step()"]
    if _is_scheduled(config) and config.scheduler_unit == "batch":
        step.append("scheduler.step()")
    if every > 1:
        when = f"if step % {every} == 0:  # until then, gradients add up"
        return [backward, "step += 1", when, *_indented([*step, "optimizer.zero_grad()"])]
    clear = "optimizer.zero_grad()" if every else "# optimizer.zero_grad() is missing: gradients add up for ever"
    return [clear, backward, *step]


def _test(config: TrainConfig) -> list[str]:
    output = "network(images.cuda() / 255).cpu()" if config.precision == "float16" else "network(images / 255)"
    smooth, is_fast = config.label_smoothing > 0, config.model == "fast"
    # As trainer.networks.architectures.Mirrored does it.
    mirror = [f"    mirror = torch.cat([{output} for images in test_images.flip(-1).split(500)])"]
    return [
        *(["network.eval()  # batch normalisation by its running mean"] if is_fast else []),
        "with torch.no_grad():",
        f"    outputs = torch.cat([{output} for images in test_images.split(500)])",
        *([*mirror, "outputs = (outputs + mirror) / 2"] if is_fast else []),
        f"test_loss = {'nn.functional.cross_entropy' if smooth else 'loss_function'}(outputs, test_labels)",
        "accuracy = (outputs.argmax(1) == test_labels).float().mean()",
        *(["scheduler.step(test_loss)"] if config.scheduler == "plateau" else []),
        'print(f"         test loss {test_loss:.4f}, accuracy {accuracy:.2%}")',
    ]


def _is_scheduled(config: TrainConfig) -> bool:
    return config.scheduler != "constant" or config.num_warmup_steps > 0


def _title(config: TrainConfig) -> str:
    optimizer = optimizers.CLASSES[config.optimizer].__name__
    return f"{optimizer} with {schedulers.CLASSES[config.scheduler].__name__}" if _is_scheduled(config) else optimizer


def _not_default(kind: type, settings: Mapping[str, Any], without: Iterable[str]) -> dict[str, str]:
    """The settings, as source, in which torch's own default for this class would not do."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    return {
        name: _literal(value)
        for name, value in settings.items()
        if name not in without and value is not None and value != defaults[name]
    }


def _named(settings: Mapping[str, str]) -> list[str]:
    return [f"{name}={source}" for name, source in settings.items()]


def _literal(value: Any) -> str:
    """A value as Python writes it, text in the quotes that ruff would give it."""
    source = repr(value)
    plain = isinstance(value, str) and "'" not in value and '"' not in value
    return f'"{source[1:-1]}"' if plain else source


def _call(target: str, arguments: list[str]) -> list[str]:
    """A call in as few lines as ruff would give it."""
    inner = ", ".join(arguments)
    if len(f"{target}({inner})") <= WIDTH:
        return [f"{target}({inner})"]
    if len(inner) + 4 <= WIDTH:
        return [f"{target}(", f"    {inner}", ")"]
    return [f"{target}(", *(f"    {argument}," for argument in arguments), ")"]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
