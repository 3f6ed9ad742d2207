"""The page's words: everything it shows has its Chinese, and nothing is translated that nobody says."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.errors import Message, UserError, as_clause
from trainer.learning.loop import _advice
from trainer.learning.lr_finder import Trial, suggest
from trainer.settings.config import SETTINGS, TrainConfig
from trainer.settings.lessons import LESSONS
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS
from ui.charts.curves import MEASURES
from ui.i18n.words import DYNAMIC, STATIC, translate

REPOSITORY = Path(__file__).parents[3]
MARKED = re.compile(r'__i18n__\{"__type__": "translation_metadata", "key": ("(?:[^"\\]|\\.)*")\}')
# The functions whose first argument is a sentence for the user.
SAYING = ("translate", "say", "i18n", "in_browser", "Message", "UserError", "GpuUnavailableError", "Error")
CODE = [*(REPOSITORY / "ui").rglob("*.py"), *(REPOSITORY / "trainer").rglob("*.py")]
# Sentences of the command line, which the page never shows.
COMMAND_LINE = (
    "trainer/cli/", "trainer/hub/retry.py", "trainer/learning/device.py", "trainer/learning/distributed.py",
    "trainer/hub/repositories.py", "ui/limits.py", "trainer/hub/publish.py",
)  # fmt: skip
CHINESE = re.compile("[一-鿿]")
# Names that stay as they are: torch's, and the app's own.
NAMES = {*SETTINGS, *(f"{name}, powers of ten" for name in SETTINGS), "Optimizer Lab"}


# In a process of its own: Gradio leaves event loops behind, and warnings are errors here.
BUILD = """
import json, os, pathlib, sys, torch
from ui.lab import Lab
from ui.page import build_page
page = build_page(Lab(checkpoints=pathlib.Path(sys.argv[1]), device=torch.device("cpu"), race=None, find_lr=None))
print(json.dumps(page.config["components"], default=str), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def components(tmp_path_factory) -> list[dict]:
    """What the page is made of, as the browser gets it."""
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path_factory.mktemp("checkpoints"))],
        cwd=REPOSITORY,
        env={**os.environ, "OPTIMIZER_LAB_DATA": "synthetic"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(built.stdout.splitlines()[-1])


def marked(part) -> set[str]:
    """The sentences that a component leaves to the browser to translate, wherever in it they stand."""
    if isinstance(part, str):
        return {json.loads(key) for key in MARKED.findall(part)}
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return set().union(*map(marked, inner))


def texts(code: ast.AST) -> list[str]:
    """The strings that stand in a piece of code."""
    return [part.value for part in ast.walk(code) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def calls(file: Path, *names: str) -> Iterator[ast.expr]:
    """The first argument of each call of functions of those names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if (
            isinstance(node, ast.Call)
            and node.args
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in names
        ):
            yield node.args[0]


def literals(said: ast.expr) -> list[str]:
    """The string that an expression is, or the two that it chooses between."""
    if isinstance(said, ast.IfExp):
        return literals(said.body) + literals(said.orelse)
    return [said.value] if isinstance(said, ast.Constant) else []


@pytest.mark.slow
def test_what_the_page_marks_has_its_chinese(components):
    """A sentence wrapped in i18n() would stay English without an entry among the static words."""
    assert marked([component["props"] for component in components]) <= STATIC.keys()


@pytest.mark.slow
def test_what_the_controls_are_called_has_its_chinese(components):
    """Labels, helps, buttons, tabs and accordions, marked or not."""
    for component in components:
        props = component["props"]
        if component["type"] == "api" or props.get("visible") == "hidden":
            continue
        texts = [props.get(name) for name in ("label", "info", "placeholder")]
        if component["type"] == "button":
            texts.append(props["value"])
        for text in texts:
            if isinstance(text, str) and not text.startswith("__i18n__") and text not in NAMES:
                assert text in STATIC, component["type"]


def test_helps_and_lessons_have_their_chinese():
    """Every setting's help, every optimizer's and scheduler's sentence, every lesson's words."""
    said = [declared.help for declared in SETTINGS.values()]
    said += [row.about for rows in (OPTIMIZERS, SCHEDULERS) for row in rows.values()]
    said += [text for lesson in LESSONS.values() for text in (lesson.title, lesson.before, lesson.after)]
    assert [sentence for sentence in said if sentence not in STATIC] == []


def test_placeholders_agree():
    """Both languages say the same values, and static words none: Gradio cuts their marker at the first brace."""
    for english, chinese in DYNAMIC.items():
        assert sorted(re.findall(r"\{(\w+)\}", english)) == sorted(re.findall(r"\{(\w+)\}", chinese)), english
    assert [english for english in STATIC if "{" in english or "}" in english] == []
    assert STATIC.keys().isdisjoint(DYNAMIC)


def test_no_word_shadows_one_of_gradios():
    """Gradio's own words stand in groups such as `slider`; an entry of that name would show as [object Object]."""
    assert [english for english in STATIC if re.fullmatch("[a-z_]+", english)] == ["unset"]


def test_chinese_is_set_as_chinese():
    """Full-width punctuation, and a space between Chinese and Latin letters or digits."""
    for english, chinese in {**STATIC, **DYNAMIC}.items():
        assert not re.search(r"[一-鿿][,;:!?()]|[,;!?()][一-鿿]", chinese), chinese
        assert not re.search(r"[一-鿿][A-Za-z0-9]|[A-Za-z0-9][一-鿿]", chinese), chinese
        only_joins = not re.search("[a-z]", re.sub(r"\{\w+\}", "", english))  # it has no words of its own
        assert CHINESE.search(chinese) or english in ("中文", "The Hub") or only_joins


def constants() -> set[str]:
    """Every string in the code of the page and the library."""
    return {text for file in CODE for text in texts(ast.parse(file.read_text(encoding="utf-8")))}


def test_every_translation_is_used():
    """An entry that no code says any more would be kept up to date for nothing."""
    titles = {measure.title.capitalize() for measure in MEASURES.values()}
    assert {**STATIC, **DYNAMIC}.keys() - constants() - titles == set()


def test_every_template_has_its_chinese():
    """Errors, messages and whatever a handler translates; the command line's own sentences stay English."""
    files = [file for file in CODE if not file.relative_to(REPOSITORY).as_posix().startswith(COMMAND_LINE)]
    said = {text for file in files for call in calls(file, *SAYING) for text in literals(call)}
    assert {"epoch {epoch} of {epochs}", "There is no such run among yours; it may have been deleted."} <= said
    assert said - STATIC.keys() - DYNAMIC.keys() == set()


def test_no_error_for_users_is_a_bare_ValueError():  # noqa: N802
    """A sentence without a template could not be translated."""
    raised = [(file.name, call) for file in CODE for call in calls(file, "ValueError") if texts(call)]
    assert [(name, texts(call)) for name, call in raised if name != "errors.py"] == []


@pytest.mark.parametrize("every", [1, 0])
@pytest.mark.parametrize("lowest", [2.3, 2.0, 0.1])
@pytest.mark.parametrize("last", [2.3, 3.0, 90.0])
def test_what_the_lr_finder_says_has_its_chinese(every, lowest, last):
    """Whether the loss falls or not, and diverges or not."""
    losses = [2.3, 2.3, 2.3, 2.29, lowest, lowest, last, last]
    trials = [
        Trial(step=step, num_steps=8, lr=10.0 ** (step - 8), loss=loss, smoothed=loss)
        for step, loss in enumerate(losses, 1)
    ]
    reason = suggest(TrainConfig(zero_grad_every=every), trials, 10).reason
    assert not re.search("[a-z]{4}", translate(reason, "zh").replace("zero_grad_every", "")), reason


def test_no_sentence_stands_twice():
    """Of two entries of one name, JSON silently takes the last."""

    def once(pairs: list[tuple[str, object]]) -> dict:
        names = [name for name, _ in pairs]
        assert sorted(names) == sorted(set(names))
        return dict(pairs)

    json.loads((REPOSITORY / "ui" / "i18n" / "zh.json").read_text(encoding="utf-8"), object_pairs_hook=once)


def test_values_fill_the_placeholders():
    """In both languages; a sentence without Chinese is said in English."""
    assert translate("epoch {epoch} of {epochs}", "en", epoch=3, epochs=10) == "epoch 3 of 10"
    assert translate("epoch {epoch} of {epochs}", "zh", epoch=3, epochs=10) == "第 3 轮，共 10 轮"
    assert translate("no such {thing}", "zh", thing="word") == "no such word"
    assert translate("Nobody says {this}.", "zh") == "Nobody says {this}."


def test_a_message_is_translated_by_its_template():
    """With the messages among its values; a stranger's text among them stays as it is."""
    error = UserError("momentum must be a number, not {value}.", value="'{x.__class__}'")
    assert translate(str(error), "en") == "momentum must be a number, not '{x.__class__}'."
    assert translate(str(error), "zh") == str(error)  # has no Chinese
    unreached = UserError("{server} could not be reached ({reason}).", server=Message("The Hub"), reason="timed out")
    assert translate(str(unreached), "zh") == "连不上 Hub （timed out）。"
    form = "There are no pictures to train on: {reason}"
    damaged = Message("The file {name} is damaged.", name="Stop")
    assert translate(form, "zh", reason=damaged) == "没有图片可以训练：文件 Stop 已损坏。"


def test_a_message_as_a_clause_is_translated_without_its_full_stop():
    """As errors.as_clause makes it."""
    why = as_clause(UserError("Two classes have the same name."))
    refused = Message("{what} cannot be used: {why}.", what=Message("The folder {folder}", folder="/pets"), why=why)
    assert refused == "The folder /pets cannot be used: two classes have the same name."
    assert translate(refused, "zh") == "文件夹 /pets 没法使用：有两个类别重名。"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_refused_setting_is_told_in_chinese(name):
    """Whatever range it has."""
    with pytest.raises(ValueError, match="must be") as refused:
        TrainConfig(**{name: {}})
    told = translate(str(refused.value), "zh")
    assert told.startswith(f"{name} 必须是")
    assert not re.search(r"\b(number|numbers|of|above|from|to|or more|between)\b", told)


def test_the_advice_for_a_diverged_run_is_told_in_chinese():
    """For both of its causes."""
    for changed in ({}, {"zero_grad_every": 0}):
        advice = translate(_advice(TrainConfig(**changed), 2), "zh")
        assert advice.startswith("在第 2 轮")
        assert "usually" not in advice
        assert "gradients" not in advice
