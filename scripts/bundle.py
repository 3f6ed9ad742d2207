"""Adds a run's network, as float16, to the networks that come with the app: python -m scripts.bundle RUN NAME."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from trainer.networks.files import CONFIG_FILE, WEIGHTS_FILE
from trainer.runs.model_card import CARD_FILE, model_card
from trainer.runs.reader import read_run
from trainer.runs.run_folder import HISTORY_FILE

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def bundle(run: Path, folder: Path) -> None:
    """Writes the network of the run in the folder `run`, and its model card, to `folder`."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(run / CONFIG_FILE, folder / CONFIG_FILE)
    config, data = (json.loads((run / name).read_text(encoding="utf-8")) for name in (CONFIG_FILE, HISTORY_FILE))
    (folder / CARD_FILE).write_text(model_card(read_run(run), data["data"], config))
    tensors = load_file(run / WEIGHTS_FILE)
    halved = {
        name: tensor.to(torch.float16 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in tensors.items()
    }
    save_file(halved, folder / WEIGHTS_FILE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle", description=__doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    parser.add_argument("name", metavar="NAME", help="its name in checkpoints/")
    arguments = parser.parse_args()
    bundle(arguments.run, CHECKPOINTS / arguments.name)


if __name__ == "__main__":
    main()
