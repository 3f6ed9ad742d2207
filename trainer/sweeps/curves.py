"""What the runs of a sweep say about tuning: how long they take to a target, and how many trials find good settings."""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence

from trainer.runs.run import Run
from trainer.sweeps.axes import Axis, Cell
from trainer.sweeps.results import groups, main_axis


def seconds_to(run: Run, accuracy: float) -> float | None:
    """Returns the seconds after which the run's test accuracy was `accuracy` (0–1) or more; None if it never was.

    It is measured at the end of each epoch. The time of the evaluations counts, except that of the untrained network.
    """
    epoch = epochs_to(run, accuracy)
    return None if epoch is None else sum(row.seconds for row in run.history[1 : epoch + 1])


def epochs_to(run: Run, accuracy: float) -> int | None:
    """Returns the epochs after which the run's test accuracy was `accuracy` (0–1) or more; None if it never was."""
    return next((row.epoch for row in run.history if row.test_accuracy >= accuracy), None)


def expected_best(results: Sequence[float]) -> list[float]:
    """Returns the expected best (largest) of the results of k different random trials, for k = 1 … len(results).

    Of the C(n, k) equally likely choices of k trials among n, C(i - 1, k - 1) have the i-th smallest result as their
    largest. Dodge et al., "Show Your Work" (2019, arXiv 1909.03004), define the curve for trials drawn with
    replacement; without, it is the unbiased estimate of Tang et al., "Showing Your Work Doesn't Always Work" (2020,
    arXiv 2004.13705), and ends at the best result.
    """
    ordered, n = sorted(results), len(results)
    return [math.fsum(map(operator.mul, _weights(n, k), reversed(ordered))) for k in range(1, n + 1)]


def _weights(n: int, k: int) -> Iterator[float]:
    """Yields how likely each of n results is the largest of k, from the largest result to the smallest."""
    weight = k / n  # C(n - 1, k - 1) / C(n, k)
    for i in range(n - 1, -1, -1):
        yield weight
        weight *= max(0, i - k + 1) / max(1, i)  # C(i - 1, k - 1) / C(i, k - 1)


def tuning(runs: Mapping[Cell, Run], axes: Sequence[Axis]) -> Iterator[tuple[str, list[float]]]:
    """Yields each optimizer, or other name that varies, with the expected best accuracy after 1, 2, … trials.

    A trial is a combination of settings. Its result is the mean over the seeds of the accuracy on the images kept
    aside or, without any, on the test images. A run that diverged counts as its untrained network.
    """
    main = main_axis(axes)
    results: dict[str, list[float]] = {}
    for group in groups(runs):
        accuracies = [_accuracy(run) for run in group.runs if run.history]
        if accuracies:
            name = str(group.values[main.name]) if main else ""
            results.setdefault(name, []).append(math.fsum(accuracies) / len(accuracies))
    for name, found in results.items():
        yield name, expected_best(found)


def _accuracy(run: Run) -> float:
    row = run.history[0 if run.status == "diverged" else -1]
    return row.test_accuracy if row.holdout_accuracy is None else row.holdout_accuracy
