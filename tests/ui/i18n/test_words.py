"""The translations: every sentence of the page has one, and none is left over."""

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
from ui.parts.run.job_words import Standing, sharing_words
from ui.parts.run.run_view import _STATUS

REPOSITORY = Path(__file__).parents[3]
MARKED = re.compile(r'__i18n__\{"__type__": "translation_metadata", "key": ("(?:[^"\\]|\\.)*")\}')
# The functions whose first argument is a sentence for the user.
TAKE_SENTENCES = ("translate", "say", "i18n", "in_browser", "Message", "UserError", "GpuUnavailableError", "Error")
CODE = [*(REPOSITORY / "ui").rglob("*.py"), *(REPOSITORY / "trainer").rglob("*.py")]
# Sentences outside of trainer/cli that only a command prints; they stay English.
COMMAND_LINE = {
    "{variable} must be a number above 0, or inf for no limit, not {text}.",
    "{variable} must be a whole number from 0 to {most}, not {text}.",
    "There is no run in {folder}.",
    "The device must be one of {devices}, not {name}.",
    "There is no {name} device here that PyTorch can use; cpu always works.",
    "A batch_size of {batch_size} is too small for {size} processes to share.",
    "Several processes cannot train on {type} together; add --device cpu.",
    "Work runs on local, ray or ray://HOST:PORT, not on {text}.",
    "Ray is not installed ({reason}); install it with: pip install -r requirements-ray.txt",
    "There is no Ray cluster at {place} ({reason}).",
    "The Ray cluster cannot be used: {reason}.",
    "The Ray cluster has no workers; start some with ray start --address=HOST:PORT.",
    "A node of the Ray cluster does not work: {reason}.",
    "This machine has {count} GPUs, fewer than processes; start one process for each GPU, or add --device cpu.",
}
CHINESE = re.compile("[一-鿿]")
# Names that are not translated: torch's, and the app's own.
NAMES = {*SETTINGS, *(f"{name}, powers of ten" for name in SETTINGS), "Optimizer Lab"}


# In a separate process: Gradio leaves event loops behind, and warnings are errors here.
BUILD = """
import json, os, pathlib, sys, torch
from ui.lab import Lab
from ui.page import build_page
page = build_page(Lab(checkpoints=pathlib.Path(sys.argv[1]), device=torch.device("cpu"), run=None))
print(json.dumps(page.config["components"], default=str), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def components(tmp_path_factory) -> list[dict]:
    """The components of the page, as the browser gets them."""
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path_factory.mktemp("checkpoints"))],
        cwd=REPOSITORY,
        env={**os.environ, "OPTIMIZER_LAB_DATA": "synthetic"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(built.stdout.splitlines()[-1])


def marked(part) -> set[str]:
    """The sentences anywhere in a component that the browser translates."""
    if isinstance(part, str):
        return {json.loads(key) for key in MARKED.findall(part)}
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return set().union(*map(marked, inner))


def texts(code: ast.AST) -> list[str]:
    """The strings in a piece of code."""
    return [part.value for part in ast.walk(code) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def calls(file: Path, *names: str) -> Iterator[ast.expr]:
    """The first argument of each call of a function with one of those names."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and node.args
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in names
        ):
            yield node.args[0]


def literals(sentence: ast.expr) -> list[str]:
    """The string of a literal, or the strings of both branches of a conditional expression; [] for anything else."""
    if isinstance(sentence, ast.IfExp):
        return literals(sentence.body) + literals(sentence.orelse)
    return [sentence.value] if isinstance(sentence, ast.Constant) else []


@pytest.mark.slow
def test_marked_sentences_have_chinese(components):
    """Without an entry among the static sentences, one wrapped in i18n() would stay English."""
    assert marked([component["props"] for component in components]) <= STATIC.keys()


@pytest.mark.slow
def test_labels_have_chinese(components):
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


def test_helps_and_lessons_have_chinese():
    """The help of every setting, the description of every optimizer and scheduler, the texts of every lesson."""
    sentences = [declared.help for declared in SETTINGS.values()]
    sentences += [row.about for rows in (OPTIMIZERS, SCHEDULERS) for row in rows.values()]
    sentences += [text for lesson in LESSONS.values() for text in (lesson.title, lesson.before, lesson.after)]
    assert [sentence for sentence in sentences if sentence not in STATIC] == []


def test_both_languages_have_the_same_placeholders():
    """Static sentences have none, because Gradio cuts their marker at the first brace."""
    for english, chinese in DYNAMIC.items():
        assert sorted(re.findall(r"\{(\w+)\}", english)) == sorted(re.findall(r"\{(\w+)\}", chinese)), english
    assert [english for english in STATIC if "{" in english or "}" in english] == []
    assert STATIC.keys().isdisjoint(DYNAMIC)


def test_no_key_collides_with_a_group_of_gradios():
    """Gradio groups its own words under keys such as `slider`; an entry of that name would show as [object Object]."""
    assert [english for english in STATIC if re.fullmatch("[a-z_]+", english)] == ["unset"]


def test_one_chinese_word_for_one_thing():
    """你 and not 您, 随机猜测 and not 瞎猜, 作品库 and not 画廊."""
    assert [chinese for chinese in {**STATIC, **DYNAMIC}.values() if re.search("您|瞎猜|画廊", chinese)] == []


def test_chinese_typography():
    """Full-width punctuation, and a space between Chinese and Latin letters or digits."""
    for english, chinese in {**STATIC, **DYNAMIC}.items():
        assert not re.search(r"[一-鿿][,;:!?()]|[,;!?()][一-鿿]", chinese), chinese
        assert not re.search(r"[一-鿿][A-Za-z0-9]|[A-Za-z0-9][一-鿿]", chinese), chinese
        has_words = re.search("[a-z]", re.sub(r"\{\w+\}", "", english))
        assert CHINESE.search(chinese) or english in ("中文", "The Hub") or not has_words


def constants() -> set[str]:
    """Every string in the code of the page and the library."""
    return {text for file in CODE for text in texts(ast.parse(file.read_text(encoding="utf-8")))}


def test_every_translation_is_used():
    """An entry that no code uses would be maintained for nothing."""
    titles = {measure.title.capitalize() for measure in MEASURES.values()}
    assert {**STATIC, **DYNAMIC}.keys() - constants() - titles == set()


def test_every_template_has_chinese():
    """Errors, messages and what handlers translate; sentences of the command line stay English."""
    files = [file for file in CODE if not file.is_relative_to(REPOSITORY / "trainer" / "cli")]
    sentences = {text for file in files for call in calls(file, *TAKE_SENTENCES) for text in literals(call)}
    assert {"epoch {epoch} of {epochs}", "You have no such run; it may have been deleted."} <= sentences
    assert sentences - STATIC.keys() - DYNAMIC.keys() == COMMAND_LINE


def test_every_status_has_chinese():
    """Of a run, and of a job that shares the machine."""
    assert {words for status in _STATUS.values() for words in status} - {""} <= DYNAMIC.keys()
    for num_others in (1, 2):
        words = sharing_words(Standing(num_others=num_others, is_paused=True, seconds_left=60.0), "zh")
        assert len(words) == 3
        assert not re.search("[a-z]{2}", " ".join(words))


def test_no_error_for_users_is_a_bare_ValueError():  # noqa: N802
    """A sentence without a template could not be translated."""
    raised = [(file.name, call) for file in CODE for call in calls(file, "ValueError") if texts(call)]
    assert [(name, texts(call)) for name, call in raised if name != "errors.py"] == []


@pytest.mark.parametrize("every", [1, 0])
@pytest.mark.parametrize("lowest", [2.3, 2.0, 0.1])
@pytest.mark.parametrize("last", [2.3, 3.0, 90.0])
def test_the_lr_finders_reasons_have_chinese(every, lowest, last):
    """Whether the loss falls or not, and whether it diverges or not."""
    losses = [2.3, 2.3, 2.3, 2.29, lowest, lowest, last, last]
    trials = [
        Trial(step=step, num_steps=8, lr=10.0 ** (step - 8), loss=loss, smoothed=loss)
        for step, loss in enumerate(losses, 1)
    ]
    reason = suggest(TrainConfig(zero_grad_every=every), trials, 10).reason
    assert not re.search("[a-z]{4}", translate(reason, "zh").replace("zero_grad_every", "")), reason


def test_no_key_is_repeated():
    """JSON would silently use the last of two equal keys."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        names = [name for name, _ in pairs]
        assert sorted(names) == sorted(set(names))
        return dict(pairs)

    json.loads((REPOSITORY / "ui" / "i18n" / "zh.json").read_text(encoding="utf-8"), object_pairs_hook=unique)


def test_values_fill_the_placeholders():
    """In both languages. A sentence without a translation stays English."""
    assert translate("epoch {epoch} of {epochs}", "en", epoch=3, epochs=10) == "epoch 3 of 10"
    assert translate("epoch {epoch} of {epochs}", "zh", epoch=3, epochs=10) == "第 3 轮，共 10 轮"
    assert translate("no such {thing}", "zh", thing="word") == "no such word"
    assert translate("Nobody says {this}.", "zh") == "Nobody says {this}."


def test_a_message_is_translated_by_its_template():
    """Values that are messages are translated too; others, which may be a stranger's text, are not."""
    error = UserError("momentum must be a number, not {value}.", value="'{x.__class__}'")
    assert translate(str(error), "en") == "momentum must be a number, not '{x.__class__}'."
    assert translate(str(error), "zh") == str(error)  # has no Chinese
    unreached = UserError("{server} could not be reached ({reason}).", server=Message("The Hub"), reason="timed out")
    assert translate(str(unreached), "zh") == "连不上 Hub （timed out）。"
    form = "There are no pictures to train on: {reason}"
    damaged = Message("The file {name} is damaged.", name="Stop")
    assert translate(form, "zh", reason=damaged) == "没有图片可以训练：文件 Stop 已损坏。"


def test_a_message_as_a_clause_is_translated_without_its_full_stop():
    """`as_clause` removes it from the English sentence."""
    why = as_clause(UserError("Two classes have the same name."))
    refused = Message("{what} cannot be used: {why}.", what=Message("The folder {folder}", folder="/pets"), why=why)
    assert refused == "The folder /pets cannot be used: two classes have the same name."
    assert translate(refused, "zh") == "文件夹 /pets 没法使用：有两个类别重名。"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_refused_setting_is_explained_in_chinese(name):
    """Whatever range the setting has."""
    with pytest.raises(ValueError, match="must be") as refused:
        TrainConfig(**{name: {}})
    sentence = translate(str(refused.value), "zh")
    assert sentence.startswith(f"{name} 必须是")
    assert not re.search(r"\b(number|numbers|of|above|from|to|or more|between)\b", sentence)


def test_the_advice_for_a_diverged_run_has_chinese():
    """For both causes of divergence."""
    for changed in ({}, {"zero_grad_every": 0}):
        advice = translate(_advice(TrainConfig(**changed), 2), "zh")
        assert advice.startswith("在第 2 轮")
        assert "usually" not in advice
        assert "gradients" not in advice
