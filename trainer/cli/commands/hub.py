"""The commands `publish` and `load`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub

from trainer.cli.options import add_command, checkpoints_folder
from trainer.cli.progress import progress_bar
from trainer.errors import UserError
from trainer.hub import publish, repositories
from trainer.progress import quiet
from trainer.runs import run_folder

if TYPE_CHECKING:
    from trainer.cli.options import Commands


def add_publish(commands: "Commands") -> None:
    """Adds the command `publish`."""
    parser = add_command(
        commands, "publish", publish_command, "publish a run, or the new epochs of a published one, on the Hub"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("repo_id", metavar="REPO_ID", help="owner/name of a new repo or of the run's own")
    parser.add_argument("--private", action="store_true", help="make the new repo visible to you only")


def publish_command(options: argparse.Namespace) -> int:
    """Publishes a run and prints the address of its page."""
    token = huggingface_hub.get_token()
    if token is None:
        raise UserError("Publishing needs a token for the Hub: log in with `hf auth login`, or set HF_TOKEN.")
    with progress_bar() as report, quiet(huggingface_hub):
        url = publish.publish(options.run, options.repo_id, token=token, private=options.private, progress=report)
    print(url)
    return 0


def add_load(commands: "Commands") -> None:
    """Adds the command `load`."""
    parser = add_command(
        commands, "load", load_command, "download a published checkpoint, to classify with or to resume"
    )
    parser.add_argument("checkpoint", metavar="REPO_ID[@REVISION]")
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="default: checkpoints/ and the repo's name")


def load_command(options: argparse.Namespace) -> int:
    """Loads a published checkpoint into a folder and prints what it can be used for."""
    repo_id, revision = repositories.split_revision(options.checkpoint)
    folder = options.folder or checkpoints_folder() / run_folder.check_name(repo_id.partition("/")[2])
    with progress_bar() as report, quiet(huggingface_hub):
        token = huggingface_hub.get_token()
        can_resume = repositories.load(repo_id, folder, revision=revision, token=token, progress=report)
    go_on = f"python -m trainer {'resume' if can_resume else 'classify'} {folder}"
    print(f"{repo_id} is in {folder}. Go on with: {go_on}{'' if can_resume else ' PICTURE'}")
    return 0
