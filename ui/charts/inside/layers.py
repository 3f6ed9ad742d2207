"""The chart of what was measured in a run's layers, or in one layer of several runs; the same as SVG and as CSV."""

import csv
import functools
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt

from trainer.palette import COLORS, PLAN
from trainer.runs.comparison import Contender, compare, differences
from trainer.runs.events import LayersMeasured
from trainer.runs.layers import FIGURES
from trainer.runs.run import Run
from trainer.settings.config import SETTINGS
from ui.charts.curves import diverged_rows
from ui.charts.live import sized
from ui.charts.svg import names_of_lines, part, to_svg
from ui.i18n.words import translate

HEIGHT = 340
RULE_OF_THUMB = 1e-3

_FLOOR = 1e-10  # of the update's size that is drawn; one of 0 has no logarithm
_DASHES = ((1, 0), (6, 3))
_SVG_WIDTH, _SVG_HEIGHT = 420, 240


class _Statistic(NamedTuple):
    """A view of the chart: its button, the title and scale of its axis, and the formats of its ticks and values."""

    button: str
    title: str
    scale: str
    ticks: str = "~g"
    format: str = ".3~g"


STATISTICS = {
    "update_ratio": _Statistic("update / weights", "size of the update / size of the weights", "log", ".0e"),
    "grad_norm": _Statistic("gradient", "norm of the gradient", "log"),
    "weight_norm": _Statistic("weights", "norm of the weights", "log"),
    "inactive": _Statistic("inactive ReLUs", "ReLUs that no picture makes active", "linear", ".0%", ".1%"),
}


class Line(NamedTuple):
    """A line of the chart: its name, color and dashes."""

    name: str
    color: str
    dash: tuple[int, int]  # pixels of line and of gap

    @property
    def background(self) -> str:
        """The CSS background of its key in a legend."""
        drawn, gap = self.dash
        if not gap:
            return self.color
        return f"repeating-linear-gradient(90deg,{self.color} 0 {drawn}px,transparent 0 {drawn + gap}px)"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What the chart shows: all layers of a run or, of several, the one named `layer`."""

    runs: Sequence[Run]
    repo_ids: Sequence[str]
    layer: str

    @property
    def contenders(self) -> list[Contender]:
        """The runs; those that differ only in their seed are one contender."""
        return compare(self.runs, self.repo_ids)

    @property
    def lines(self) -> list[Line]:
        """The lines: one for each layer of a single run, else one for each contender."""
        names = layer_names(self.runs) if len(self.runs) == 1 else [one.label for one in self.contenders]
        count = len(COLORS)
        return [Line(name, COLORS[i % count], _DASHES[i // count % len(_DASHES)]) for i, name in enumerate(names)]


def layer_names(runs: Sequence[Run]) -> list[str]:
    """Returns the names of the layers that were measured in any of the runs, in the order of the network."""
    return list(dict.fromkeys(name for run in runs for each in run.layers[:1] for name in each.layers))


def layers_chart(drawn: Drawn, language: str) -> dict[str, Any]:
    """The statistics over the epochs, each a view. A dashed line marks the rule of thumb for the updates' size."""
    epochs = max((run.config.epochs for run in drawn.runs), default=1)
    specs = {
        translate(one.button, language): _spec(name, tuple(drawn.lines), epochs, HEIGHT, language)
        for name, one in STATISTICS.items()
    }
    return {"specs": specs, "view": next(iter(specs)), "data": _data(drawn, language)}


def draw(drawn: Drawn, language: str) -> str:
    """Returns all four statistics as SVG, with a legend."""
    epochs = max(run.config.epochs for run in drawn.runs)
    lines = tuple(drawn.lines)
    charts = [
        part(_spec(name, lines, epochs, _SVG_HEIGHT, language), _SVG_WIDTH) | {"title": translate(one.title, language)}
        for name, one in STATISTICS.items()
    ]
    names = names_of_lines([line.name for line in lines], [line.color for line in lines], 14)
    return to_svg([{"hconcat": charts[:2]}, {"hconcat": charts[2:]}, names], _data(drawn, language))


def to_csv(runs: Sequence[Run], repo_ids: Sequence[str]) -> str:
    """Returns CSV with a row for each layer of each measured step: the run, the settings that differ, the figures."""
    all_differences = differences([run.config for run in runs])
    names = [name for name in SETTINGS if any(name in own for own in all_differences)]
    published = any(repo_ids)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    places = ["epoch", "step", "epochs_passed", "layer"]
    table.writerow(["run", *(["repo_id"] if published else []), *names, *places, *FIGURES])
    for number, (run, own) in enumerate(zip(runs, all_differences, strict=True), 1):
        known = [number, *([repo_ids[number - 1]] if published else []), *(own.get(name, "") for name in names)]
        for each in run.layers:
            for index, layer in enumerate(each.layers):
                figures = (getattr(each, name)[index] for name in FIGURES)
                table.writerow([*known, each.epoch, each.step, each.epochs_passed, layer, *figures])
    return text.getvalue()


def _data(drawn: Drawn, language: str) -> dict[str, Any]:
    series = [(str(index), line.color) for index, line in enumerate(drawn.lines)]
    return {
        "layers": list(_rows(drawn)),
        "rule": [{"update_ratio": RULE_OF_THUMB, "text": translate("rule of thumb: a thousandth", language)}],
        "diverged": diverged_rows(drawn.contenders, series or [("0", PLAN)]),
    }


def _rows(drawn: Drawn) -> Iterator[dict[str, Any]]:
    """Yields the figures of each line at each measured step."""
    lines = drawn.lines
    if len(drawn.runs) == 1:
        for each in drawn.runs[0].layers:
            for index, line in enumerate(lines):
                yield _row(each, index, index, 0, line)
        return
    for index, one in enumerate(drawn.contenders):
        for number, run in enumerate(one.runs):
            for each in run.layers:
                if drawn.layer in each.layers:
                    yield _row(each, each.layers.index(drawn.layer), index, number, lines[index])


def _row(each: LayersMeasured, layer: int, series: int, number: int, line: Line) -> dict[str, Any]:
    figures = {name: getattr(each, name)[layer] for name in FIGURES}
    ratio = figures["update_ratio"]
    return {
        **figures,
        "ratio": ratio,
        "update_ratio": None if ratio is None else max(ratio, _FLOOR),
        "epoch": round(each.epochs_passed, 4),
        "step": each.step,
        "series": str(series),
        "run": f"{series} {number}",
        "label": line.name,
    }


def _colors(lines: Sequence[Line]) -> dict[str, Any]:
    return {"domain": [str(index) for index in range(len(lines))], "range": [line.color for line in lines]}


@functools.lru_cache(maxsize=128)
def _spec(name: str, lines: tuple[Line, ...], epochs: int, height: int, language: str) -> dict[str, Any]:
    shown = STATISTICS[name]
    title = translate(shown.title, language)
    x = alt.X(
        "epoch:Q",
        title=translate("epoch", language),
        scale=alt.Scale(domain=[0, epochs], nice=False),
        axis=alt.Axis(tickMinStep=1, tickCount=min(epochs, 12), format="d", labelFlush=False),
    )
    scale = alt.Scale(type="log") if shown.scale == "log" else alt.Scale(domain=[0, 1])
    y = alt.Y(f"{name}:Q", title=title, scale=scale, axis=alt.Axis(format=shown.ticks, minExtent=42, tickCount=6))
    color = alt.Color("series:N", scale=alt.Scale(**_colors(lines)), legend=None)
    dashes = alt.Scale(domain=_colors(lines)["domain"], range=[list(line.dash) for line in lines])
    dash = alt.StrokeDash("series:N", scale=dashes, legend=None)
    tip = [
        alt.Tooltip("label:N", title=translate("curve", language)),
        alt.Tooltip("epoch:Q", title=translate("epoch", language)),
        alt.Tooltip("step:Q", title=translate("batch", language)),
        alt.Tooltip(f"{'ratio' if name == 'update_ratio' else name}:Q", format=shown.format, title=title),
    ]
    is_drawable = f"datum.{name} > 0" if shown.scale == "log" else f"isValid(datum.{name})"
    rows = alt.Chart(alt.Data(name="layers", values=[])).transform_filter(is_drawable)
    broken = alt.Chart(alt.Data(name="diverged", values=[]))
    layers = [
        rows.mark_line(strokeWidth=2).encode(x, y, color, dash, alt.Detail("run:N")),
        rows.mark_point(filled=True, size=28, opacity=1).encode(x, y, color, tooltip=tip),
        broken.mark_rule(strokeDash=[2, 2], color=PLAN).encode(x),
        broken.mark_text(text="✕ NaN", align="left", dx=4, fontWeight="bold", color=PLAN).encode(x, y=alt.value(8)),
    ]
    if name == "update_ratio":
        rule = alt.Chart(alt.Data(name="rule", values=[]))
        text = rule.mark_text(align="right", dx=-4, dy=-6, color=PLAN, fontSize=11)
        layers += [
            rule.mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=PLAN).encode(y=y),
            text.encode(y=y, text="text:N", x=alt.value("width")),
        ]
    return sized(layers, height)
