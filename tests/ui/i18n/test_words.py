"""The page's words: everything it shows has its Chinese, and nothing is translated that nobody says."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.learning.loop import _advice
from trainer.learning.lr_finder import Trial, suggest
from trainer.settings import config as settings
from trainer.settings.config import OPTIMIZERS, SCHEDULERS, SETTINGS, TrainConfig
from trainer.settings.lessons import LESSONS
from ui.i18n.words import DYNAMIC, STATIC, translate

REPOSITORY = Path(__file__).parents[3]
MARKED = re.compile(r'__i18n__\{"__type__": "translation_metadata", "key": ("(?:[^"\\]|\\.)*")\}')
# Where the code puts a sentence together: values, and halves that several sentences share.
JOINTS = r"\{\w+\}|(?=, which the disk| could not be reached| answered, then| at most \{)|(?<= from )|(?<=^from )"
SAID_IN = [*(REPOSITORY / "ui").rglob("*.py"), *(REPOSITORY / "trainer").rglob("*.py")]
# What the page never says: the command line's own words, and errors that are caught and told in other words.
COMMAND_LINE = {
    "trainer/cli/main.py", "trainer/hub/retry.py", "trainer/learning/device.py", "trainer/learning/distributed.py",
    "trainer/hub/repositories.py", "ui/limits.py", "trainer/hub/publish.py",
}  # fmt: skip
CAUGHT = {"has another kind or shape than its parameter", "Some of the optimizer's tensors are missing, or too many"}
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
    said = [declared.metadata["about"] for declared in SETTINGS.values()]
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
        assert CHINESE.search(chinese) or english == "中文"


def test_nothing_is_translated_that_nobody_says():
    """What stands between the placeholders of each entry stands in the code too, so that no entry outlives its text."""
    constants = {constant for file in SAID_IN for constant in texts(ast.parse(file.read_text()))}
    ranges = {settings._range(declared.metadata) for declared in SETTINGS.values()}
    said = re.sub(r"[^\S\n]+", " ", "\n".join([*constants, *ranges])).lower()
    assert said.count("momentum remembers the way") == 1
    for english in {**STATIC, **DYNAMIC}.keys() - {"中文"}:
        for part in re.split(JOINTS, english):
            assert part.strip(" .:;,()").lower() in said, english


def test_what_the_handlers_say_has_its_chinese():
    """A new translate("…") or say("…") would stay English without an entry."""
    found = [text for file in SAID_IN for said in calls(file, "translate", "say") for text in literals(said)]
    assert "epoch" in found
    assert [text for text in found if text not in STATIC | DYNAMIC] == []


def test_what_errors_say_has_its_chinese():
    """Each part of a ValueError's or gr.Error's sentence stands in some entry."""
    known = "\n".join([*STATIC, *DYNAMIC])
    files = [file for file in SAID_IN if file.relative_to(REPOSITORY).as_posix() not in COMMAND_LINE]
    errors = [text for file in files for said in calls(file, "ValueError", "Error") for text in said_by(said)]
    assert "There is no such run" in errors
    assert [text for text in errors if text not in known and text not in CAUGHT] == []


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


def test_what_is_said_of_the_hub_has_its_chinese():
    """The page says it too: each part of its sentences stands in some entry."""
    known = "\n".join([*STATIC, *DYNAMIC])
    tree = ast.parse((REPOSITORY / "trainer" / "hub" / "retry.py").read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    nodes = [node for name in ("_sentence", "_refusal", "_later") for node in ast.walk(functions[name])]
    parts = [node.value.strip(" .()") for node in nodes if isinstance(node, ast.Constant) and type(node.value) is str]
    said = [part for part in parts if " " in part]
    assert "is gated: its owner must let you in first, on its page on the Hub" in said
    assert [part for part in said if part not in known] == []
    assert translate("The Hub has been asked too much; try again in 40 seconds.", "zh").endswith("请在 40 秒后再试。")


def said_by(error: ast.expr) -> list[str]:
    """The words between the values of an error's sentence."""
    parts = error.values if isinstance(error, ast.JoinedStr) else [error]
    return [part.value.strip(" .()") for part in parts if isinstance(part, ast.Constant)]


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


def test_finished_sentences_are_known_by_their_form():
    """And what stands in them is translated in turn, while a stranger's text in it stays as it is."""
    assert translate("epoch 3 of 10", "zh") == "第 3 轮，共 10 轮"
    note = "Training on drawn shapes (synthetic), 8,000 training and 2,000 test images: the Hub could not be reached "
    note += "within 5 seconds; the server that torchvision gets CIFAR-10 from could not be reached (timed out)."
    assert translate(note, "zh") == (
        "用画出来的图形（合成数据）训练：训练图片 8,000 张，测试图片 2,000 张（5 秒内连不上 Hub；"
        "连不上 torchvision 下载 CIFAR-10 的服务器（timed out））。"
    )
    assert translate("momentum must be a number from 0 to 1, not '{x.__class__}'.", "zh").endswith(
        "不能是 '{x.__class__}'。"
    )


def test_a_sentence_is_known_as_a_clause_too():
    """In lower case and without its full stop, as sentence.as_clause makes it, and whatever its placeholders hold."""
    assert translate("The folder '/pets' cannot be used: two classes have the same name.", "zh") == (
        "文件夹 '/pets' 没法使用：有两个类别重名。"
    )
    assert translate("There is no folder a/b here, and the Hub has no dataset a/b, or it is a private one.", "zh") == (
        "这里没有 a/b 这个文件夹；Hub 上没有数据集 a/b，或者它是私有的。"
    )
    assert translate("The Hub could not be reached (timed out).", "zh") == "连不上 Hub（timed out）。"


def test_a_sentence_among_the_values_is_translated_in_turn():
    """A reason is the app's own sentence; a name is a stranger's, even where the app knows the word."""
    form = "There are no pictures to train on: {reason}"
    assert translate(form, "zh", reason="The file cats is damaged.") == "没有图片可以训练：文件 cats 已损坏。"
    assert translate("history.json is damaged: it lacks loss.", "zh") == "history.json 已损坏：缺少 loss。"
    assert translate("The file Stop is damaged.", "zh") == "文件 Stop 已损坏。"


@pytest.mark.parametrize(
    "sentence",
    [
        "it came from the Hub",
        "optimizer, 8 s",
        "8 s",
        "a, b, c of d epochs: e",
        "cat, comes with the app",
        "x" * 100_000,
    ],
)
def test_a_form_that_says_little_is_no_finished_sentence(sentence):
    """With values, or in a larger sentence, it is; alone it would fit what nobody meant."""
    assert translate(sentence, "zh") == sentence


@pytest.mark.parametrize(
    "hostile",
    [
        ", " * 300,
        ", of " * 120,
        "Training on " + ", training and " * 40,
        "Training on " + "; : " * 147,
        "There is no folder " + "here, and there is no folder " * 20,
        "There are no pictures to train on: " * 17,
        "x cannot be used: " * 33,
        "x is damaged: " * 42 + ".",
        "x must be a number from , not " * 20,
        "The run could not be saved: " * 21 + ". What was saved before is still there",
        "{reason}{0.__class__}" * 28,
    ],
)
def test_a_hostile_text_takes_no_time(hostile):
    """Text made to almost fit, as often as it can, at the length up to which forms are tried."""
    began = time.process_time()
    translate(hostile[:600], "zh")
    assert time.process_time() - began < 0.05


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
