"""The command `lessons`."""

import argparse
import json
from typing import TYPE_CHECKING

from trainer.cli.options import add_command, add_json
from trainer.settings.lessons import LESSONS, Lesson
from trainer.sweeps.axes import command_line

if TYPE_CHECKING:
    from trainer.cli.options import Commands


def add_lessons(commands: "Commands") -> None:
    """Adds the command `lessons`."""
    about = "list the lessons: ready-made experiments, some with a classic mistake"
    add_json(add_command(commands, "lessons", lessons_command, about))


def lessons_command(options: argparse.Namespace) -> int:
    """Prints each lesson: its name, its title, and what to expect."""
    for lesson in LESSONS.values():
        if options.json:
            print(json.dumps(lesson.to_json(), allow_nan=False))
        else:
            print(f"{lesson.name}: {lesson.title}\n  {lesson.before}\n  {lesson.after}\n  {_command(lesson)}\n")
    return 0


def _command(lesson: Lesson) -> str:
    """Returns the command that trains the lesson."""
    if not lesson.vary:
        return f"python -m trainer train --lesson {lesson.name}"
    return command_line(lesson.vary, lesson.settings)
