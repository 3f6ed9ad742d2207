"""The lessons: a path of cards, and for the chosen one what to look for and the button that trains it."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.jobs.pace import Pace
from trainer.networks.files import read_json
from trainer.networks.pretrained import BUNDLED
from trainer.palette import COLORS, PLAN
from trainer.settings.lessons import LESSONS, Lesson
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.parts.form import fields
from ui.parts.markup import english
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run.run_view import RunView
from ui.parts.shared import AT_ONCE, components, sent_with
from ui.tabs.train.buttons import STARTS, refusal
from ui.tabs.train.setup.estimate import seconds_of

_CURVES = BUNDLED / "lessons.json"
_MOST_BYTES = 1_000_000
_WIDTH, _HEIGHT = 132, 46  # pixels of a card's picture
_LEAST_SPAN = 0.01  # of the loss: in a smaller one a plateau would look like a descent
_HIGHEST = 1.25  # times the first loss: what is above is cut off
_NAMES = list(LESSONS)

# The browser remembers the lessons whose end it has seen.
_CARDS_SCRIPT = """
const key = 'optimizer-lab-lessons';
let chosen = '', ended = [];
try { ended = JSON.parse(localStorage.getItem(key) ?? '[]'); } catch { /* a browser may forbid it */ }

function mark() {
  for (const card of element.querySelectorAll('.card')) {
    card.setAttribute('aria-current', String(card.dataset.lesson === chosen));
    card.classList.toggle('ended', ended.includes(card.dataset.lesson));
    card.tabIndex = -1;
  }
  // One stop for the keyboard; the arrows go on from there.
  (element.querySelector('[aria-current=true]') ?? element.querySelector('.card')).tabIndex = 0;
}

element.addEventListener('keydown', event => {
  const step = { ArrowRight: 'nextElementSibling', ArrowLeft: 'previousElementSibling' }[event.key];
  const next = step && event.target.closest('.card')?.[step];
  if (!next) return;
  event.preventDefault();
  next.focus();
});

element.addEventListener('click', ({ target }) => {
  const card = target.closest('.card');
  if (card) trigger('select', { lesson: card.dataset.lesson });
});
element.addEventListener('chosen', ({ detail }) => {
  chosen = detail;
  mark();
  const path = element.querySelector('.path'), card = element.querySelector('[aria-current=true]');
  if (card) path.scrollLeft = card.offsetLeft - (path.clientWidth - card.clientWidth) / 2;
});
element.addEventListener('ended', ({ detail }) => {
  if (ended.includes(detail)) return;
  ended = [...ended, detail];
  try { localStorage.setItem(key, JSON.stringify(ended)); } catch { /* as above */ }
  mark();
});
watch('value', () => setTimeout(mark));
mark();
"""
_TELL_CARDS = """(name) => document.querySelector("#lessons .path")?.dispatchEvent(
  new CustomEvent("chosen", { detail: name, bubbles: true }))"""
# Its input is the HTML of RunView.lesson.
_TELL_ENDED = """(happened) => {
  const name = /data-ended=["']([a-z0-9-]+)["']/.exec(happened ?? "")?.[1];
  const path = document.querySelector("#lessons .path");
  if (name) path?.dispatchEvent(new CustomEvent("ended", { detail: name, bubbles: true }));
}"""


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """The cards, the name of the chosen lesson or "", and a panel for that lesson.

    The panel says what to look for, and has the button that trains the lesson with its comparisons. A lesson that is a
    sweep has a button that shows the recorded sweep instead. `close` leaves the lesson.
    """

    cards: gr.HTML
    lesson: gr.Textbox
    panel: gr.Column
    words: gr.HTML
    start: gr.Button
    sweep: gr.Button
    previous: gr.Button
    following: gr.Button
    close: gr.Button
    refused: gr.HTML

    def show(self, lesson: Lesson | None) -> Updates:
        """Updates that show a lesson, or hide the panel."""
        position = _NAMES.index(lesson.name) if lesson else 0
        return {
            self.lesson: lesson.name if lesson else "",
            self.panel: gr.update(visible=lesson is not None),
            self.words: _words(lesson, current_language()) if lesson else "",
            self.start: gr.update(visible=lesson is not None and not lesson.vary, value=_button(lesson)),
            self.sweep: gr.update(visible=lesson is not None and bool(lesson.vary)),
            self.previous: gr.update(interactive=position > 0),
            self.following: gr.update(interactive=position < len(_NAMES) - 1),
        }


def build_cards() -> gr.HTML:
    """Adds the path of cards to the page being built."""
    return gr.HTML(english(cards("en", {})), js_on_load=_CARDS_SCRIPT, elem_id="lessons")


def cards(language: str, paces: Mapping[str, Pace]) -> str:
    """The path of cards, as HTML, with the minutes that follow from the machine's paces of optimizers, by name."""
    return _path(language, tuple(paces.items()))


# Every page that opens needs it, and it takes 8 ms to write.
@lru_cache(maxsize=8)
def _path(language: str, known: tuple[tuple[str, Pace], ...]) -> str:
    paces = dict(known)
    title = html.escape(translate("Lessons", language), quote=True)
    path = "".join(_card(each, paces, language) for each in LESSONS.values())
    return f"<nav class='path' aria-label='{title}'>{path}</nav>"


def build(path: gr.HTML) -> Lessons:
    """Adds the panel of the chosen lesson to the page being built; `path` are the cards."""
    with gr.Column(visible=False, elem_id="lesson-panel") as panel:
        words = gr.HTML(elem_id="lesson-words")
        start = gr.Button(_button(None), variant="primary", size="md", elem_id="train-lesson", **STARTS)
        sweep = gr.Button(i18n("Show the recorded sweep"), visible=False, size="md", elem_id="lesson-sweep")
        refused = refusal("refused-lesson")
        with gr.Row(elem_id="lesson-steps"):
            previous = gr.Button(i18n("← Previous"), size="sm", min_width=60, elem_id="previous-lesson")
            following = gr.Button(i18n("Next →"), size="sm", min_width=60, elem_id="next-lesson")
            close = gr.Button(i18n("Close"), size="sm", min_width=60, elem_id="close-lesson")
    return Lessons(
        cards=path,
        lesson=gr.Textbox("", visible="hidden", elem_id="lesson"),
        panel=panel,
        words=words,
        start=start,
        sweep=sweep,
        previous=previous,
        following=following,
        close=close,
        refused=refused,
    )


def show_on_choice(lessons: Lessons, panel: fields.Panel) -> list[Dependency]:
    """Makes a card, Previous and Next show a lesson with its settings; returns the events."""
    outputs = components(lessons, panel)

    @with_page_errors
    def choose(event: gr.EventData) -> Updates:
        return show(lessons, panel, sent_with(event, "lesson"))

    @with_page_errors
    def step(name: Any, by: int) -> Updates:
        position = _NAMES.index(name) + by if name in _NAMES else 0
        return show(lessons, panel, _NAMES[min(max(position, 0), len(_NAMES) - 1)])

    lessons.close.click(lambda: lessons.show(None), None, components(lessons), api_name="_close_lesson", **AT_ONCE)
    return [
        lessons.cards.select(choose, None, outputs, api_name="_lesson", **AT_ONCE),
        lessons.previous.click(partial(step, by=-1), lessons.lesson, outputs, api_name="_previous_lesson", **AT_ONCE),
        lessons.following.click(partial(step, by=1), lessons.lesson, outputs, api_name="_next_lesson", **AT_ONCE),
    ]


def mark_cards(lessons: Lessons, view: RunView) -> None:
    """Makes the cards mark the chosen lesson, and those whose end this browser has seen."""
    lessons.lesson.change(None, lessons.lesson, None, js=_TELL_CARDS, api_name="_mark_lesson", **AT_ONCE)
    view.lesson.change(None, view.lesson, None, js=_TELL_ENDED, api_name="_tick_lesson", **AT_ONCE)


def show(lessons: Lessons, panel: fields.Panel, name: Any) -> Updates:
    """Updates that show a lesson: its text, buttons and settings. Raises UserError if there is none of that name."""
    if not isinstance(name, str) or name not in LESSONS:
        raise UserError("Choose a lesson first.")
    return {**lessons.show(LESSONS[name]), **panel.show(LESSONS[name].config)}


def _button(lesson: Lesson | None) -> Any:
    is_comparison = lesson is not None and not lesson.is_mistake
    return i18n("Train them side by side") if is_comparison else i18n("Train it next to its fixed version")


def _words(lesson: Lesson, language: str) -> str:
    """The title of a lesson and what to look for in it, as HTML."""
    title, before = (html.escape(translate(text, language)) for text in (lesson.title, lesson.before))
    return f"<div class='lesson-words'><b>{title}</b><p>{before}</p></div>"


def _card(lesson: Lesson, paces: Mapping[str, Pace], language: str) -> str:
    """The card of a lesson, as HTML."""
    seconds = sum(seconds_of(config, paces) for config in (lesson.config, *lesson.compared))
    minutes = translate("{number} min", language, number=max(1, round(seconds / 60)))
    time = translate("recorded", language) if lesson.vary else minutes
    return (
        f"<button class='card' data-lesson='{lesson.name}' aria-current='false'>{_picture(lesson.name)}"
        f"<b>{html.escape(translate(lesson.title, language))}</b>"
        f"<span>{html.escape(time)}<i aria-hidden='true'>✓</i></span></button>"
    )


def _picture(name: str) -> str:
    """The recorded curves of a lesson as SVG, its own in front; only their axes if there are none."""
    curves = [[(float(x), float(y)) for x, y in curve] for curve in _recorded().get(name, []) if curve]
    axes = f"<path d='M1 1V{_HEIGHT - 1}H{_WIDTH}' stroke='{PLAN}' opacity='.5'/>"
    lines = _lines(curves) if curves else ""
    return f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' fill='none' aria-hidden='true'>{axes}{lines}</svg>"


def _lines(curves: Sequence[Sequence[tuple[float, float]]]) -> str:
    """Curves as SVG lines that fill a card's picture, the first one in front."""
    xs = [x for curve in curves for x, _ in curve]
    top = _HIGHEST * max(curve[0][1] for curve in curves)
    ys = [min(y, top) for curve in curves for _, y in curve]
    left, right, high = min(xs), max(xs), max(ys)
    low = min(*ys, high - _LEAST_SPAN)

    def position(x: float, y: float) -> str:
        across = 3 + (_WIDTH - 6) * (x - left) / (right - left or 1)
        return f"{across:.1f},{3 + (_HEIGHT - 6) * (high - min(y, top)) / (high - low):.1f}"

    lines = []
    for number, curve in enumerate(curves):
        points, width = " ".join(position(*point) for point in curve), 2.4 if number == 0 else 1.6
        color = COLORS[number % len(COLORS)]
        lines.append(f"<polyline points='{points}' stroke='{color}' stroke-width='{width}'/>")
    return "".join(reversed(lines))


@lru_cache(maxsize=1)
def _recorded() -> dict[str, Sequence[Sequence[tuple[float, float]]]]:
    """The recorded curves of the lessons, as scripts/record_lessons.py writes them; {} without the file."""
    return read_json(_CURVES, at_most=_MOST_BYTES)["curves"] if _CURVES.exists() else {}
