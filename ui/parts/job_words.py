"""What the page says about a job: who shares the machine, how long it takes, what it waits for."""

from ui.i18n.words import translate
from ui.jobs.queue import Job, Jobs
from ui.parts.markup import duration


def sharing_words(num_others: int, seconds_left: float | None, language: str) -> list[str]:
    """How many others share the machine and the time left, as parts of a sentence; [] if neither is known."""
    left = None
    if seconds_left is not None:
        left = translate("about {duration} left", language, duration=duration(seconds_left, language))
    if not num_others:
        return [left] if left else []
    template = "you share this machine with {count} others" if num_others > 1 else "you share this machine with 1 other"
    sharing = translate(template, language, count=num_others)
    return [f"{sharing}: {left}" if left else sharing]


def waiting_words(jobs: Jobs, job: Job, language: str) -> str:
    """Why a job has not begun."""
    before = jobs.num_before(job)
    template = {
        0: "the machine is full; yours is next",
        1: "the machine is full; 1 is ahead of yours",
    }.get(before, "the machine is full; {count} are ahead of yours")
    return translate(template, language, count=before)
