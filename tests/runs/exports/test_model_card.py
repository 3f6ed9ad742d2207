"""The model card makes true claims, is readable by the Hub and escapes every name."""

import re
import shlex
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from torchvision.io import decode_png

from trainer.runs.events import EpochEnded
from trainer.runs.exports.model_card import draw_curves, model_card
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig, parse

UNTRAINED = EpochEnded(
    epoch=0,
    train_loss=None,
    train_loss_sum=None,
    test_loss=2.302585,
    test_accuracy=0.1,
    lr=None,
    grad_norm=None,
    seconds=1.0,
    images_per_second=None,
)
TRAINED = replace(UNTRAINED, epoch=1, train_loss=1.23456, test_loss=1.5, test_accuracy=0.4567, lr=1e-05)
DATA = {"name": "CIFAR-10", "source": "hub", "revision": "0" * 40, "digest": "0" * 64}
CONFIG = {"architecture": "quick", "class_names": ["cat", "dog"]}


def card(data_name="CIFAR-10", class_names=("cat", "dog"), **settings):
    run = Run(config=TrainConfig(**settings), history=[UNTRAINED, TRAINED])
    return model_card(run, {**DATA, "name": data_name}, {**CONFIG, "class_names": list(class_names)})


def test_the_accuracy_of_each_class():
    """Next to the mean, with the names escaped."""
    last = replace(TRAINED, class_accuracy={"cat": 1.0, "*dog*": 0.25, "absent": None})
    text = model_card(Run(config=TrainConfig(), history=[UNTRAINED, last]), DATA, CONFIG)
    assert "(loss 1.5000). Accuracy of each class\\: cat 100%, \\*dog\\* 25%." in text


def test_the_card_of_a_repo():
    """It includes the picture of the curves, loads from its own repo, and holds the settings that lists display."""
    run = Run(config=TrainConfig(optimizer="adam"), history=[UNTRAINED, TRAINED])
    markdown = model_card(run, DATA, CONFIG, repo_id="owner/run", has_curves=True)
    assert "](curve.png)" in markdown
    assert 'OptimizerLabModel.from_pretrained("owner/run")' in markdown
    assert "epoch-0000" not in markdown
    assert '  # revision="epoch-0000": the untrained' in model_card(
        run, DATA, CONFIG, repo_id="owner/run", has_untrained=True
    )
    assert "curve.png" not in card()
    metadata = ModelCard(markdown).data
    assert metadata.optimizer_lab == {"optimizer": "adam", "lr": run.config.lr, "scheduler": "onecycle", "epochs": 10}
    assert metadata.datasets == ["uoft-cs/cifar10"]
    for other in ("synthetic", "CIFAR-100", "CIFAR-10.1"):
        other_metadata = ModelCard(card(other)).data
        assert other_metadata.datasets is None
        assert "cifar10" not in other_metadata.tags
        assert other_metadata.eval_results[0].dataset_type == "other"
    assert ModelCard(card("CIFAR-10 (JPEG)")).data.datasets == ["uoft-cs/cifar10"]
    assert {"image-classification", "cifar10", "optimizer-lab"} <= set(metadata.tags)


def test_the_card_of_fast_explains_the_mirroring():
    """Needed to rebuild it from its weights alone; quick only does what config.json says."""
    run = Run(config=TrainConfig(model="fast"), history=[UNTRAINED, TRAINED])
    assert "and its mirror image." in model_card(run, DATA, {**CONFIG, "architecture": "fast"})
    assert "mirror" not in card()
    assert "mirror" not in model_card(run, DATA, {**CONFIG, "architecture": "fast", "mirror": False})


def test_the_card_of_a_pretrained_network_says_so():
    """It names what its convolutions learned from, and whether they learned anything since."""
    assert "Its convolutions started from those of a network trained on CIFAR-10." in card(pretrained="finetuned")
    assert "only the layers after them were trained" in card(pretrained="frozen")
    assert "Its convolutions" not in card()


def test_the_command_that_trains_the_same():
    """It has the settings that are not defaults and hides private paths; it is left out if settings changed."""
    assert "\npython -m trainer train --data hub\n" in card()
    command = "python -m trainer train --optimizer adam --lr 0.01 --betas 0.8,0.99 --epochs 3"
    settings = {"optimizer": "adam", "lr": 0.01, "betas": (0.8, 0.99), "epochs": 3}
    assert f"\n{command} --data hub\n" in card(**settings)
    parsed = {name: parse(name, text) for name, text in TrainConfig(**settings).as_text().items()}
    assert TrainConfig.from_settings(parsed) == TrainConfig(**settings)
    run = Run(config=TrainConfig(), history=[UNTRAINED, TRAINED])
    for source in ("/home/somebody/pictures", "x\n```\n<script>"):
        markdown = model_card(run, {**DATA, "source": source}, CONFIG)
        assert "--data FOLDER\n" in markdown
        assert source not in markdown
    commit = "a" * 40
    for source, revision in (
        (f"ylecun/mnist@{commit}", commit),
        (f"uoft-cs/cifar100:cifar100@{commit}?label=coarse_label", commit),
    ):
        markdown = model_card(run, {**DATA, "name": "x", "source": source, "revision": revision}, CONFIG)
        assert f"--data {shlex.quote(source)}\n" in markdown
        assert f"datasets:\n- {source.partition('@')[0].partition(':')[0]}\n" in markdown
    changed = replace(TRAINED, continued_with={"scheduler": "constant"})
    assert "Train it again" not in model_card(Run(config=TrainConfig(), history=[UNTRAINED, changed]), DATA, CONFIG)


def text_of(html):
    """Returns the text that a reader sees, on one line, without tags."""
    import html as entities

    return entities.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html)))


def rendered(markdown):
    """Renders as the Hub does: with GitHub's tables and HTML passed through."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(ModelCard(markdown).text)


def test_front_matter():
    """The Hub reads licence, library, task, and the accuracy as a model-index result."""
    metadata = ModelCard(card()).data
    assert (metadata.license, metadata.library_name) == ("apache-2.0", "pytorch")
    assert metadata.pipeline_tag == "image-classification"
    assert {"cifar10", "optimizer-lab"} <= set(metadata.tags)
    (result,) = metadata.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.4567, "test")
    assert (result.dataset_type, result.dataset_name) == ("uoft-cs/cifar10", "CIFAR-10")
    assert "model-index" in metadata.to_dict()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("CIFAR-10 (JPEG)", "uoft-cs/cifar10"), ("synthetic", "other"), ("drawn shapes", "other")],
)
def test_the_name_of_the_data(name, kind):
    """Drawn shapes are not CIFAR-10, and a re-encoded copy says so."""
    markdown = card(name)
    (result,) = ModelCard(markdown).data.eval_results
    assert (result.dataset_name, result.dataset_type) == (name, kind)
    assert f"of the test pictures of {name} correctly" in text_of(rendered(markdown))


def test_numbers():
    """Percentages have two digits, losses four, lr is as written; a cell without a value is empty."""
    html = rendered(card(lr=1e-05))
    text = text_of(html)
    assert "45.67% of the test pictures" in text
    assert "loss 1.5000" in text
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    assert ["0", "", "2.303", "10.00%", ""] in rows
    assert ["1", "1.235", "1.5", "45.67%", "1e-05"] in rows
    assert ["<code>lr</code>", "1e-05"] in rows


def test_every_setting_is_listed():
    """The card is enough to repeat the run."""
    config = TrainConfig(optimizer="adam", scheduler="multistep", seed=7)
    html = rendered(card(optimizer="adam", scheduler="multistep", seed=7))
    for name, value in config.settings().items():
        assert re.search(rf"<td><code>{name}</code></td>\s*<td>{re.escape(str(value))}</td>", html), name


EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</p><h1>x",
    "<!-- ",
    "&lt;b&gt;",
    "`code`",
    "```",
    "[link](https://example.com)",
    "![x](https://example.com/x.png)",
    "<https://example.com>",
    "**bold** _it_ ~~no~~",
    "# Title",
    "| a | b |",
    "---",
    "- item",
    "1. item",
    "> quote",
    "$$x$$",
    "\\",
    "{0} {metadata}",
    "%s",
    "x: y",
    "'",
    '"',
    "*",
    "&amp;",
]


@pytest.mark.parametrize("name", EVIL)
def test_class_names_are_only_text(name):
    """Markup in a class name is displayed as text: the page has the same tags as for `cat`."""
    html, plain = rendered(card(class_names=[name, "dog"])), rendered(card())
    assert re.findall(r"<[a-zA-Z/!][^>]*>", html) == re.findall(r"<[a-zA-Z/!][^>]*>", plain)
    assert f"2 classes: {name.strip()}, dog. It assigns" in text_of(html)


@pytest.mark.parametrize(
    "name", [*EVIL, "a\n\n# Title", "a\n===", "x\n---\nlicense: mit\n---\n", "a\r\n\r\n- b", "a\n\n    code"]
)
def test_data_names_are_only_text(name):
    """A folder's name may contain anything, even line breaks: it stays in its sentence and its YAML entry."""
    markdown = card(name)
    html = rendered(markdown)
    assert re.findall(r"<[a-zA-Z/!][^>]*>", html) == re.findall(r"<[a-zA-Z/!][^>]*>", rendered(card()))
    assert f"of the test pictures of {' '.join(name.split())} correctly" in text_of(html)
    metadata = ModelCard(markdown).data
    assert metadata.license == "apache-2.0"
    assert metadata.eval_results[0].dataset_name == name
    assert ModelCard(markdown).text.lstrip().startswith("# quick by sgd")


@pytest.mark.slow
def test_the_picture_of_the_curves():
    """It is a PNG wide enough to read, the same for the same run and another for another."""
    run = Run(config=TrainConfig(), history=[UNTRAINED, TRAINED])
    picture = draw_curves(run)
    pixels = decode_png(torch.frombuffer(bytearray(picture), dtype=torch.uint8))
    assert pixels.shape[1] > 400
    assert pixels.shape[2] > 1200
    assert len(pixels.flatten(1).unique(dim=1)[0]) > 3
    assert draw_curves(run) == picture
    assert draw_curves(Run(config=TrainConfig(), history=[UNTRAINED])) != picture
