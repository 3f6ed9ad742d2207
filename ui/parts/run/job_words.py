"""What the page says about a job: who shares the machine, how long it takes, what it waits for."""

from dataclasses import dataclass

from ui.i18n.words import translate
from ui.jobs.queue import Job, Jobs
from ui.parts.markup import duration


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a running job stands: the number of others beside it, whether they go first, the seconds until it ends."""

    num_others: int = 0
    is_paused: bool = False
    seconds_left: float | None = None

    @classmethod
    def of(cls, jobs: Jobs, job: Job) -> "Standing":
        """Returns how a job stands now."""
        return cls(num_others=jobs.num_others(job), is_paused=jobs.is_paused(job), seconds_left=jobs.seconds_left(job))


def sharing_words(standing: Standing, language: str) -> list[str]:
    """How many others share the machine and the time left, as parts of a sentence; [] if neither is known."""
    words = []
    if others := standing.num_others:
        template = "you share this machine with {count} others" if others > 1 else "you share this machine with 1 other"
        words.append(translate(template, language, count=others))
    if standing.is_paused:
        words.append(translate("paused while newer trainings catch up", language))
    if standing.seconds_left is not None:
        left = duration(standing.seconds_left, language)
        words.append(translate("about {duration} left", language, duration=left))
    return words


def waiting_words(jobs: Jobs, job: Job, language: str) -> str:
    """Why a job has not begun."""
    before = jobs.num_before(job)
    template = {
        0: "the machine is full; yours is next",
        1: "the machine is full; 1 is ahead of yours",
    }.get(before, "the machine is full; {count} are ahead of yours")
    return translate(template, language, count=before)
