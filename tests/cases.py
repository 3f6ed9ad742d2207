"""Cases of parametrized tests, and what a generator returns."""

from collections.abc import Generator, Iterable
from typing import Any

import pytest

from trainer.progress import Steps
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS

ROWS = [*((name, row.scheduler) for name, row in OPTIMIZERS.items()), *(("adam", name) for name in SCHEDULERS)]
"""Every optimizer with its own scheduler, and every scheduler with an optimizer that has betas."""


def first_is_quick(cases: Iterable[Any]) -> list[Any]:
    """Returns the cases of a parametrized test, all marked slow except the first. A tuple has several arguments."""
    first, *others = (case if isinstance(case, tuple) else (case,) for case in cases)
    return [pytest.param(*first), *(pytest.param(*case, marks=pytest.mark.slow) for case in others)]


def finish(generator: Generator[Any, Any, Any]) -> Any:
    """Returns the return value of a generator."""
    steps = Steps(generator)
    for _ in steps:
        pass
    return steps.value
