"""The page's words: everything it shows has its Chinese, and nothing is translated that nobody says."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import config as settings
from trainer.config import OPTIMIZERS, SCHEDULERS, SETTINGS, TrainConfig
from trainer.lessons import LESSONS
from trainer.loop import _advice
from ui.words import DYNAMIC, STATIC, translate

REPOSITORY = Path(__file__).parents[1]
MARKED = re.compile(r'__i18n__\{"__type__": "translation_metadata", "key": ("(?:[^"\\]|\\.)*")\}')
# Where the code puts a sentence together: values, and halves that several sentences share.
JOINTS = r"\{\w+\}|(?=, which the disk| could not be reached| answered, then| at most \{)|(?<= from )|(?<=^from )"
CHINESE = re.compile("[一-鿿]")
# Names that stay as they are: torch's, and the app's own.
NAMES = {*SETTINGS, *(f"{name}, powers of ten" for name in SETTINGS), "Optimizer Lab"}


# In a process of its own: Gradio leaves event loops behind, and warnings are errors here.
BUILD = """
import json, os, pathlib, sys, torch
from ui.lab import Lab
from ui.layout import build_page
page = build_page(Lab(checkpoints=pathlib.Path(sys.argv[1]), device=torch.device("cpu"), train=None))
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


def test_what_the_page_marks_has_its_chinese(components):
    """A sentence wrapped in i18n() would stay English without an entry among the static words."""
    assert marked([component["props"] for component in components]) <= STATIC.keys()


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
    files = [*(REPOSITORY / "ui").glob("*.py"), *(REPOSITORY / "trainer").glob("*.py")]
    constants = {
        node.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    ranges = {settings._range(declared.metadata) for declared in SETTINGS.values()}
    said = re.sub(r"[^\S\n]+", " ", "\n".join([*constants, *ranges])).lower()
    assert said.count("momentum remembers the way") == 1
    for english in {**STATIC, **DYNAMIC}.keys() - {"中文"}:
        for part in re.split(JOINTS, english):
            assert part.strip(" .:;,()").lower() in said, english


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
    assert translate("x" * 100_000, "zh") == "x" * 100_000


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
