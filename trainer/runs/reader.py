"""Reads a run from its folder, without trusting who wrote it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.learning.checkpoint import Checkpoint
from trainer.networks.files import WEIGHTS_FILE, largest_file, parse_json, read_tensors
from trainer.networks.model import OptimizerLabModel
from trainer.runs import lock, training_json
from trainer.runs.layers import read_layers
from trainer.runs.run import Run
from trainer.runs.run_folder import HISTORY_FILE, TENSORS_FILE
from trainer.settings.config import TrainConfig

_SNAPSHOT_TRIES = 50
_SNAPSHOT_SECONDS = 0.02  # between two tries


def read_run(folder: Path) -> Run:
    """Returns the run with its curves and its status: `interrupted` if its process ended without reporting the end.

    Reads no tensors, and works while the run is in training. Raises UserError if the folder has no valid run.
    """
    run = training_json.to_run(training_json.load(folder))
    if run.status == "training" and not lock.is_held(folder):
        run.status = "interrupted"
    return run


def read_settings(folder: Path) -> tuple[TrainConfig, Mapping[str, Any]]:
    """Returns the run's settings, and the name, source, revision and digest of its images.

    Reads no tensors, and works while the run is in training. Raises UserError if the folder has no valid run.
    """
    content = training_json.load(folder)
    return training_json.to_run(content).config, training_json.to_data(content)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Returns the checkpoint that the run resumes from. Raises UserError if the folder has no complete, valid one."""
    content = training_json.load(folder)
    run = training_json.to_run(content)
    if not run.history:
        raise UserError("{file} is damaged: it has no epochs.", file=HISTORY_FILE)
    digests = training_json.entry(content, "files", dict)
    if digests.keys() == {WEIGHTS_FILE}:
        raise UserError("This is an intermediate epoch of a published run; only its last epoch can be resumed.")
    model = OptimizerLabModel.from_pretrained(folder)
    mapped = read_tensors(folder / TENSORS_FILE, at_most=largest_tensors_file(model))
    # Copies: Windows refuses to replace a mapped file, and the run that is resumed saves its next epoch there.
    tensors = {name: tensor.clone() for name, tensor in mapped.items()}
    del mapped
    state = training_json.to_state(content, run.epoch)
    files = {name: (folder / name).read_bytes() for name in (WEIGHTS_FILE, TENSORS_FILE)}
    for name, digest in training_json.digests(files).items():
        if digests.get(name) != digest:
            raise UserError("{file} does not belong to this run's {history}.", file=name, history=HISTORY_FILE)
    return Checkpoint(
        config=run.config,
        data=training_json.to_data(content),
        history=tuple(run.history),
        weights=model.state_dict(),
        tensors=tensors,
        state=state,
        curve=training_json.curve_until(run.curve, run.epoch),
        keeps_all=content.get("keep_epochs") == "all",
        layers=tuple(read_layers(folder, run.epoch)),
        name=run.name,
    )


def largest_tensors_file(model: OptimizerLabModel) -> int:
    """Returns the most bytes that a run's training.safetensors may have."""
    # An optimizer has at most four tensors for each weight, and there may be an accumulated gradient.
    return 5 * largest_file(model)


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns the files to publish, by name: all of the folder itself except dot files, without `epochs/`.

    All belong to one state, also while the run is in training. Raises UserError if one is damaged, or if they do not
    match each other.
    """
    for _ in range(_SNAPSHOT_TRIES):
        try:
            files = {
                path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."
            }
            expected = training_json.entry(parse_json(files[HISTORY_FILE], HISTORY_FILE), "files", dict)
            if expected and expected == training_json.digests({name: files[name] for name in expected}):
                return files
        except (FileNotFoundError, KeyError):
            pass
        time.sleep(_SNAPSHOT_SECONDS)  # a writer may be moving the files
    raise UserError("The run's files do not match each other: some are missing or damaged.")
