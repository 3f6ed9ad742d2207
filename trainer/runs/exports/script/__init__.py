"""A run's settings as a plain PyTorch script: the tutorial's loop, for a beginner to read and run."""

import re
from collections.abc import Mapping
from typing import Any

from trainer.runs.exports.script.images import image_source, load_splits, make_loader
from trainer.runs.exports.script.loop import make_loop
from trainer.runs.exports.script.network import make_loss, make_network
from trainer.runs.exports.script.optimizer import define_optimizer, make_optimizer, make_scheduler, title
from trainer.settings.config import TrainConfig

# In the order of the script: a pattern of the code that needs an import, the import, and the packages to install.
_IMPORTS = (
    (r"\bhashlib\.", "import hashlib", ""),
    (r"\bmath\.", "import math", ""),
    (r"\brandom\.Random\b", "import random", ""),
    (r"\bCallable\[", "from collections.abc import Callable, Iterable", ""),
    (r"\bAny\b", "from typing import Any", ""),
    ("", "", ""),
    (r"\bdatasets\.", "import datasets", "datasets pillow"),
    (r"\bnp\.", "import numpy as np", "numpy"),
    (r"\btorch\.", "import torch", "torch"),
    (r"= Prodigy\(", "from prodigyopt import Prodigy", "prodigyopt"),
    (r"\bload_file\(", "from safetensors.torch import load_file", "safetensors"),
    (r"= AdamWScheduleFree\(", "from schedulefree import AdamWScheduleFree", "schedulefree"),
    (r"= SGDScheduleFree\(", "from schedulefree import SGDScheduleFree", "schedulefree"),
    (r"= Adan\(", "from timm.optim import Adan", "timm"),
    (r"= Adopt\(", "from timm.optim import Adopt", "timm"),
    (r"= Lion\(", "from timm.optim import Lion", "timm"),
    (r"= Mars\(", "from timm.optim import Mars", "timm"),
    (r"\bnn\.", "from torch import nn", "torch"),
    (r"\bDataLoader\(", "from torch.utils.data import DataLoader, TensorDataset", "torch"),
    (r"\bCIFAR10\(", "from torchvision.datasets import CIFAR10", "torchvision"),
    (r"\bImageFolder\(", "from torchvision.datasets import ImageFolder", "torchvision"),
    (r"\bdecode_image\(", "from torchvision.io import decode_image", "torchvision"),
    (r"\bv2\.", "from torchvision.transforms import v2", "torchvision"),
    (r"\bload_images\(", "from trainer import load_images", "-r requirements.txt"),
)


def as_code(config: TrainConfig, data: Mapping[str, Any]) -> str:
    """Returns the source of a script that trains with `config`: on the CPU, or on a CUDA GPU for float16.

    `data` is the data entry of training.json, as trainer.images.image_data.facts returns it. Only its source and
    revision are used; a stranger may have written them, and no part of them becomes code. The script names a folder by
    its path; whether the folder holds Parquet files is looked up on this machine's disk.

    Without `flip` and `shift` the script prints the losses and accuracies of train(), up to float32's rounding: it has
    the same initial weights, images and order. It differs from train() in that it continues after a loss of NaN,
    ignores settings that changed during the run, and reads a folder's images without GIFs and without replacing
    transparency by white.

    Raises UserError if `data` names no source, or a dataset that the Hub cannot have; and for a pretrained network
    that does not come with this copy of the app.
    """
    source = image_source(data)
    parts = [
        *define_optimizer(config),
        *source.lines,
        *load_splits(config),
        *make_loader(config),
        "",
        *make_network(config, source),
        *make_loss(config),
        *make_optimizer(config),
        *make_scheduler(config),
        "",
        *make_loop(config),
    ]
    body = "\n".join(parts)
    used = [(line, packages) for pattern, line, packages in _IMPORTS if re.search(pattern, body)]
    imports = "\n".join(line for line, _ in used).strip()
    gap = "\n\n\n" if body.startswith(("def ", "class ")) else "\n\n"
    packages = " ".join(sorted({names for _, names in used if names}))
    head = f"# {title(config)}, set as in Optimizer Lab, in plain PyTorch.\n# pip install {packages}\n"
    return f"{head}{imports}{gap}{body}\n"
