"""Publishes this checkout as a Hugging Face Space: python -m scripts.deploy OWNER/NAME."""

import argparse
import sys
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, Volume, get_token

from trainer.errors import UserError
from trainer.hub import retry
from trainer.networks.model import TAG

ROOT = Path(__file__).parents[1]

# What a Space runs; not tests, benchmarks or local runs.
FILES = (
    "README.md", "LICENSE", "app.py", "requirements.txt", "pyproject.toml", "docs/*.webp",
    "trainer/**/*.py", "ui/**/*.*", "checkpoints/quick/*.*", "checkpoints/fast/*.*",
    "checkpoints/*.json",
)  # fmt: skip

_MOUNT_PATH = "/data"


def deploy(repo_id: str, *, private: bool = False, hardware: str | None = None, bucket: str | None = None) -> str:
    """Makes the Space `repo_id` contain this checkout, in one commit, and returns the address of its page.

    Args:
        repo_id: owner/name of the Space, which is created if it does not exist.
        private: Whether a new Space is visible to its owner only.
        hardware: One of Hugging Face's names, such as "zero-a10g" (ZeroGPU).
        bucket: owner/name of a storage bucket for the runs, which is created if it does not exist. The disk of a Space
            is erased at each restart.

    Raises:
        UserError: The token is malformed, the Hub refuses or cannot be reached, or the Space belongs to another app.
    """
    api = HfApi(token=retry.checked_token(get_token()))
    with retry.explain_errors(repo_id):
        url = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        space = api.space_info(repo_id)
        present = {file.rfilename for file in space.siblings or []}
        if present - {"README.md", ".gitattributes"} and TAG not in (space.tags or []):
            raise UserError("{repo_id} is another Space: choose a new name.", repo_id=repo_id)
        if private and not space.private:
            raise UserError(
                "{repo_id} is public already: make it private in its settings on the Hub first.",
                repo_id=repo_id,
            )
        if bucket:
            api.create_bucket(bucket, private=True, exist_ok=True)
            api.set_space_volumes(repo_id, [Volume(type="bucket", source=bucket, mount_path=_MOUNT_PATH)])
            api.add_space_variable(repo_id, "OPTIMIZER_LAB_CHECKPOINTS", f"{_MOUNT_PATH}/runs")
        # With hf_xet installed, upload_folder would make several commits, and the Space would be built between them.
        files = {path.relative_to(ROOT).as_posix(): path for pattern in FILES for path in sorted(ROOT.glob(pattern))}
        operations: list[CommitOperationAdd | CommitOperationDelete]
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        operations += [CommitOperationDelete(name) for name in sorted(present - files.keys() - {".gitattributes"})]
        retry.call_once(
            lambda: api.create_commit(
                repo_id, operations, commit_message="Deploy", repo_type="space", parent_commit=space.sha
            )
        )
        if hardware:
            api.request_space_hardware(repo_id, hardware)  # type: ignore[arg-type]  # the Hub knows its newest names
    return str(url)


def main() -> None:
    """Runs the command; a UserError is one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m scripts.deploy", description=__doc__)
    parser.add_argument("repo_id", metavar="OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="make the new Space visible to you only")
    parser.add_argument("--hardware", help="for example zero-a10g (ZeroGPU) or cpu-basic; a new Space has cpu-basic")
    parser.add_argument("--bucket", metavar="OWNER/NAME", help="a storage bucket in which runs survive a restart")
    try:
        print(deploy(**vars(parser.parse_args())))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
