"""The command `mistakes`."""

import argparse
import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.cli.commands.classify import open_model
from trainer.cli.options import (
    add_command,
    add_data,
    add_device,
    add_json,
    check_output,
    device_of,
    images_of,
    save_text,
)
from trainer.cli.progress import bar_of
from trainer.images.image_data import ImageData
from trainer.insight.mistakes import Answers, answer, bin_rows, check_fits, class_rows, total_row, unfair_because
from trainer.progress import Steps
from trainer.runs.run_folder import is_run

if TYPE_CHECKING:
    from trainer.cli.options import Commands

_MOST_LISTED = 10  # pairs of classes

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }}
table {{ border-collapse: collapse; margin: 1rem 0 2rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .5rem; text-align: right; }}
th {{ font-weight: 600; }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<h2>Confusion matrix</h2>
<p>A row for each class, a column for what its pictures were taken for.</p>
{matrix}
<h2>Classes</h2>
<p>Recall: the share of a class's pictures that are recognised. Precision: the share of the pictures taken for a class
that belong to it.</p>
{classes}
<h2>Reliability</h2>
<p>Answers by their confidence. Where accuracy is below confidence, the network is too sure of itself (Guo et al. 2017,
arXiv:1706.04599).</p>
{bins}
</html>
"""


def add_mistakes(commands: "Commands") -> None:
    """Adds the command `mistakes`."""
    about = "report which test pictures a network takes for which class"
    parser = add_command(commands, "mistakes", mistakes_command, about)
    parser.add_argument("run", metavar="RUN", help="a folder, or repo_id[@revision] on the Hub")
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="write the report as a page, too")
    add_data(parser)
    add_json(parser)
    add_device(parser)


def mistakes_command(options: argparse.Namespace) -> int:
    """Prints the scores of the network on the test pictures, and its most frequent mistakes."""
    check_output(options.output)
    device = device_of(options)
    model = open_model(options.run).to(device)
    images = images_of(options.data)
    check_fits(model, images)
    print(images.sentences, file=sys.stderr)
    folder = Path(options.run)
    if unfair := unfair_because(folder, images) if is_run(folder) else "":
        print(unfair, file=sys.stderr)
    steps = Steps(answer(model, images))
    with bar_of(1.0, is_hidden=options.json) as bar:
        for bar.n in steps:
            bar.refresh()
    answers = steps.value
    if options.output:
        save_text(options.output, _page(options.run, images, answers, unfair))
    _print_json(answers) if options.json else _print(answers)
    return 0


def _print(answers: Answers) -> None:
    print(f"{_summary(answers)}\n\n{'class':20}  pictures  recall  precision")
    for score in answers.class_scores:
        print(f"{score.name:20}  {score.num_pictures:8}  {_percent(score.recall):>6}  {_percent(score.precision):>9}")
    confusion, names = answers.confusion, answers.class_names
    wrong = confusion.clone().fill_diagonal_(0).flatten()
    print("\nMost frequent mistakes:")
    for place in wrong.argsort(descending=True, stable=True)[:_MOST_LISTED].tolist():
        if wrong[place]:
            true, predicted = divmod(place, len(names))
            print(f"  {int(wrong[place]):5}  {names[true]} taken for {names[predicted]}")


def _print_json(answers: Answers) -> None:
    for row in class_rows(answers):
        _print_row("class", row)
    for row in bin_rows(answers):
        _print_row("bin", row)
    _print_row("mistakes", total_row(answers))


def _print_row(event: str, row: dict[str, object]) -> None:
    print(json.dumps({"event": event, **row}, allow_nan=False), flush=True)


def _page(run: str, images: ImageData, answers: Answers, unfair: str) -> str:
    names = answers.class_names
    rows = []
    for name, counts in zip(names, answers.confusion.tolist(), strict=True):
        total = max(1, sum(counts))
        cells = (_cell(count, count / total) for count in counts)
        rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    scores = [
        (score.name, score.num_pictures, _percent(score.recall), _percent(score.precision))
        for score in answers.class_scores
    ]
    bins = [
        (f"{each.low:.0%}–{each.high:.0%}", each.num_pictures, f"{each.confidence:.1%}", f"{each.accuracy:.1%}")
        for each in answers.bins
    ]
    return _PAGE.format(
        title=html.escape(f"Mistakes of {run}"),
        summary=html.escape(f"{_summary(answers)} {unfair} The test pictures: {images.name}."),
        matrix=f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>",
        classes=_table(("class", "pictures", "recall", "precision"), scores),
        bins=_table(("confidence", "pictures", "mean confidence", "accuracy"), bins),
    )


def _cell(count: int, share: float) -> str:
    """A field of the matrix as HTML, the darker the larger the share of its row."""
    ink = "#fff" if share > 0.5 else "#222"
    return f"<td style='background:rgba(59,130,246,{share:.3f});color:{ink}'>{count or ''}</td>"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _summary(answers: Answers) -> str:
    return (
        f"{answers.accuracy:.2%} of {len(answers.labels):,} test pictures right; expected calibration error "
        f"{answers.calibration_error:.2%}."
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
