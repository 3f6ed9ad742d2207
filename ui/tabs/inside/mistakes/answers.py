"""The answers of a chosen network for the test pictures, which a job computes once."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakKeyDictionary

from trainer.errors import UserError
from trainer.insight.mistakes import Answers
from trainer.networks.model import OptimizerLabModel
from ui.jobs.insight import MistakesJob
from ui.lab import Lab
from ui.parts.run.checkpoints import in_thread, open_kept, open_model
from ui.run_index import is_key
from ui.stored_runs import bundled
from ui.tabs.inside.choice import checked, images_of
from ui.tabs.inside.job_view import chosen_runs
from ui.visitors import checked_visitor

_SECONDS_BETWEEN_UPDATES = 0.4

# The answers of each network for the test pictures, as long as the network is kept.
_known: "WeakKeyDictionary[OptimizerLabModel, tuple[str, Answers]]" = WeakKeyDictionary()


def runs_of(lab: Lab, names: Any) -> list[str]:
    """The chosen runs; without any, the small network that comes with the app, if it knows the classes of the pictures.

    Raises UserError if there are none.
    """
    shipped = bundled()[-1:]
    if names == [] and shipped and set(open_kept(lab, shipped[0]).class_names) == set(lab.ready_images().class_names):
        return shipped
    return checked(names)


def chosen_run(lab: Lab, names: Any, run: Any) -> str:
    """Returns the run to display, one of the chosen ones. Raises UserError if there are none."""
    names = runs_of(lab, names)
    return run if run in names else names[0]


async def answers_of(lab: Lab, visitor: Any, name: str) -> Answers:
    """Returns the answers of a network. Raises UserError if they cannot be computed."""
    *_, answers = [step async for step in answering(lab, visitor, name)]
    assert isinstance(answers, Answers)
    return answers


async def answering(lab: Lab, visitor: Any, name: str) -> AsyncIterator[MistakesJob | Answers]:
    """Yields the job that computes the answers of a network, again and again until it has ended; then the answers.

    They are computed once. Raises UserError if they cannot be.
    """
    if is_key(name):
        lab.runs.own_run(visitor, name)
    images, model = await in_thread(images_of, lab, visitor, name), await open_model(lab, name)
    digest, answers = _known.get(model, ("", None))
    if answers is None or digest != images.digest:
        job = lab.jobs.of(visitor, MistakesJob) if is_key(visitor) else None
        if job is None or not job.is_active or job.key != name:
            (inspected,) = chosen_runs(lab, visitor, [name])
            lab.jobs.stop(checked_visitor(visitor), MistakesJob)  # for the network that was chosen before
            job = lab.find_mistakes(visitor, inspected, key=name)
        while not job.ended.is_set():
            job.watched_at = time.monotonic()
            yield job
            await asyncio.sleep(_SECONDS_BETWEEN_UPDATES)
        answers = job.answers
        if answers is None:
            raise UserError(job.failure)
        _known[model] = images.digest, answers
    yield answers
