"""Replaces the network that comes with the app, as float16, by that of a run: python -m scripts.bundle RUN."""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from trainer.errors import UserError
from trainer.networks.files import CONFIG_FILE, WEIGHTS_FILE
from trainer.runs.exports.model_card import CARD_FILE, model_card
from trainer.runs.reader import read_run
from trainer.runs.run_folder import HISTORY_FILE

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def bundle(run: Path, checkpoints: Path = CHECKPOINTS) -> Path:
    """Writes the network of the run in the folder `run`, and its model card, to a folder with the network's name.

    The page offers one network of each architecture. Returns the folder. Raises UserError if `run` is not a run.
    """
    read = read_run(run)
    folder = checkpoints / read.config.model
    folder.mkdir(exist_ok=True)
    shutil.copyfile(run / CONFIG_FILE, folder / CONFIG_FILE)
    config, data = (json.loads((run / name).read_text(encoding="utf-8")) for name in (CONFIG_FILE, HISTORY_FILE))
    (folder / CARD_FILE).write_text(model_card(read, data["data"], config), encoding="utf-8")
    tensors = load_file(run / WEIGHTS_FILE)
    halved = {
        name: tensor.to(torch.float16 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in tensors.items()
    }
    save_file(halved, folder / WEIGHTS_FILE)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle", description=__doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    try:
        print(bundle(parser.parse_args().run))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
