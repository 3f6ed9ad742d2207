"""The command `classify`."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub

from trainer.cli.options import add_command, add_device, add_json, device_of
from trainer.cli.progress import progress_bar
from trainer.errors import UserError, for_terminal
from trainer.hub import repositories, retry
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import classify
from trainer.progress import quiet

if TYPE_CHECKING:
    from trainer.cli.options import Commands


def add_classify(commands: "Commands") -> None:
    """Adds the command `classify`."""
    parser = add_command(commands, "classify", classify_command, "classify pictures with a trained network")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or repo_id[@revision] on the Hub")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to print (default: 5)")
    add_json(parser)
    add_device(parser)


def classify_command(options: argparse.Namespace) -> int:
    """Prints the predictions for each picture; a picture that cannot be read makes the exit status 2."""
    if options.top < 1:
        raise UserError("--top must be 1 or more.")
    model = open_model(options.checkpoint)
    model.to(device_of(options))
    failed = False
    for image in options.images:
        try:
            prediction = classify(model, image)
        except UserError as error:
            failed = True
            print(for_terminal(f"error: {image}: {error}"), file=sys.stderr)
            continue
        if options.json:
            row = {"image": image, "label": prediction.label, "confidences": prediction.confidences}
            print(json.dumps(row, allow_nan=False), flush=True)
        else:
            print(image)
            for name, probability in list(prediction.confidences.items())[: options.top]:
                print(f"  {probability:7.2%}  {name}")
    return 2 if failed else 0


def open_model(name: str) -> OptimizerLabModel:
    """Returns the network in a folder or on the Hub; without a network connection, the Hub's from the cache."""
    if os.path.isdir(name):
        return OptimizerLabModel.from_pretrained(name)
    if name.partition("@")[0].count("/") != 1 or name.startswith((".", "/")) or os.path.lexists(Path(name).parent):
        raise UserError("There is no checkpoint in {place}.", place=name)
    repo_id, revision = repositories.split_revision(name)
    token = retry.checked_token(huggingface_hub.get_token())
    with progress_bar() as report, quiet(huggingface_hub), retry.explain_errors(repo_id):
        return retry.call(
            lambda: OptimizerLabModel.from_pretrained(repo_id, revision=revision, token=token),
            report,
            0.0,
            f"Fetching {repo_id}",
        )
