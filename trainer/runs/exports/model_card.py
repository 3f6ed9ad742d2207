"""The model card: a run's README.md and the picture of its curves."""

import html
import shlex
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from trainer import palette
from trainer.images.address import DatasetAddress, parse
from trainer.images.image_data import OWN
from trainer.images.readers import CIFAR10_JPEG_NAME, CIFAR10_NAME, CIFAR10_REPO
from trainer.networks.model import TAG
from trainer.runs.run import Run, by_class

CARD_FILE, CURVE_FILE = "README.md", "curve.png"

# The settings in the front matter's `optimizer_lab`, which a list of checkpoints displays.
HEADLINES = ("optimizer", "lr", "scheduler", "epochs")

_SOURCES = ("hub", "torchvision", "synthetic")
_PIXELS_PER_POINT = 2  # for high-density screens

_MIRRORED = ", and the network's output is averaged over the picture and its mirror image"
_STARTS = {
    "none": "",
    "finetuned": " Its convolutions started from those of a network trained on CIFAR-10.",
    "frozen": " Its convolutions are those of a network trained on CIFAR-10; only the layers after them were trained.",
}
_TEXT = """---
{metadata}
---

# {title}

A small convolutional network (`{architecture}`), trained with Optimizer Lab.{start}

It distinguishes {num_classes} classes: {class_names}.
It assigns every picture to one of them, whatever the picture shows.

After epoch {epoch} of {epochs} it classified {accuracy:.2%} of {tested} of {data} correctly (loss {loss:.4f}).{classes}
{curve}
## Use it

```python
from trainer import OptimizerLabModel, classify

model = OptimizerLabModel.from_pretrained("{address}")  # {remark}
print(classify(model, "picture.png").confidences)
```

`trainer` is the library of the Optimizer Lab Space. The weights alone are plain safetensors:
`safetensors.torch.load_file("model.safetensors")`; `config.json` says how pictures are prepared{mirrored}.

{command}{sweep}## Settings

| setting | value |
| --- | --- |
{settings}

## Epochs

| epoch | train loss | test loss | test accuracy | lr |
| ---: | ---: | ---: | ---: | ---: |
{history}
"""


def model_card(
    run: Run,
    data: Mapping[str, Any],
    model_config: Mapping[str, Any],
    *,
    repo_id: str | None = None,
    has_curves: bool = False,
    has_untrained: bool = False,
    is_continued: bool = False,
    sweep: str = "",
) -> str:
    """Returns the card as Markdown with the Hub's front matter: results as model-index, use, settings, history.

    `data` is the data entry of training.json and `model_config` the content of config.json. Texts in them may come
    from strangers and are escaped.

    `repo_id` is the repo that the card is for, and has only letters, digits and `/._-`; None stands for a folder.
    `has_curves` says whether CURVE_FILE is next to the card, `has_untrained` whether the repo has a tag for epoch 0,
    and `is_continued` whether the run's config includes changes that were made after the last epoch of this history.
    `sweep` describes the sweep that the run belongs to, as Markdown.
    """
    last = run.history[-1]
    settings = run.config.settings()
    is_cifar10 = data["name"] in (CIFAR10_NAME, CIFAR10_JPEG_NAME)
    address = _address(data)
    dataset = address.repo_id if address else CIFAR10_REPO if is_cifar10 else None
    remark = "this repo" if repo_id else "this folder"
    if has_untrained:
        remark = 'revision="epoch-0000": the untrained network'
    settings_title = f"{model_config['architecture']} by {run.config.optimizer}, {run.config.scheduler}"
    title = f"{run.name}: {settings_title}" if run.name else settings_title
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="pytorch",
        pipeline_tag="image-classification",
        tags=[*(["cifar10"] if is_cifar10 else []), "image-classification", TAG],
        datasets=[dataset] if dataset else None,
        optimizer_lab={name: settings[name] for name in HEADLINES if name in settings},
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=dataset or "other",
                dataset_name=data["name"],
                dataset_split="test",
                metric_type="accuracy",
                metric_value=last.test_accuracy,
            )
        ],
    )
    return _TEXT.format(
        metadata=metadata.to_yaml(),
        title=_escape(title),
        architecture=model_config["architecture"],
        start=_STARTS[run.config.pretrained],
        num_classes=len(model_config["class_names"]),
        class_names=", ".join(map(_escape, model_config["class_names"])),
        data=_escape(data["name"]) + (", which are not published," if data.get("source") == OWN else ""),
        epoch=last.epoch,
        epochs=run.config.epochs,
        accuracy=last.test_accuracy,
        tested="the test pictures" if last.test_share == 1 else f"{last.test_share:.0%} of the test pictures",
        loss=last.test_loss,
        classes=f" {_escape(sentence)}" if (sentence := by_class(last)) else "",
        curve=f"\n![Loss and test accuracy over the epochs]({CURVE_FILE})\n" if has_curves else "",
        address=repo_id or ".",
        remark=remark,
        mirrored=_MIRRORED if model_config.get("mirror", model_config["architecture"] == "fast") else "",
        command="" if is_continued else _command(run, data),
        sweep=f"## The sweep that it comes from\n\n{sweep}\n\n" if sweep else "",
        settings="\n".join(f"| `{name}` | {_escape(value)} |" for name, value in settings.items()),
        history="\n".join(
            f"| {row.epoch} | {_number(row.train_loss)} | {_number(row.test_loss)} | {row.test_accuracy:.2%} "
            f"| {_number(row.lr)} |"
            for row in run.history
        ),
    )


def draw_curves(run: Run) -> bytes:
    """Returns a PNG of the train loss, test loss and test accuracy over the epochs."""
    import vl_convert  # takes half a second to import, and only publishing needs it

    return vl_convert.vegalite_to_png(_vega_lite(run), scale=_PIXELS_PER_POINT)


def _vega_lite(run: Run) -> dict[str, Any]:
    """Returns the Vega-Lite chart (https://vega.github.io/vega-lite/docs/)."""
    losses = [
        {"epoch": row.epoch, "loss": loss, "curve": curve}
        for row in run.history
        for curve, loss in (("train", row.train_loss), ("test", row.test_loss))
        if loss is not None
    ]
    accuracies = [{"epoch": row.epoch, "accuracy": row.test_accuracy} for row in run.history]
    epoch = {"field": "epoch", "type": "quantitative", "axis": {"tickMinStep": 1, "format": "d"}}
    colors = {"domain": ["train", "test"], "range": [palette.TRAIN, palette.TEST]}
    color = {"field": "curve", "type": "nominal", "scale": colors, "legend": {"title": None, "orient": "top"}}
    loss = {"field": "loss", "type": "quantitative"}
    accuracy = {
        "field": "accuracy",
        "type": "quantitative",
        "title": "test accuracy",
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%"},
    }
    size = {"width": 340, "height": 220}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "hconcat": [
            {
                **size,
                "mark": {"type": "line", "point": True},
                "data": {"values": losses},
                "encoding": {"x": epoch, "y": loss, "color": color},
            },
            {
                **size,
                "mark": {"type": "line", "point": True, "color": palette.TEST},
                "data": {"values": accuracies},
                "encoding": {"x": epoch, "y": accuracy},
            },
        ],
    }


def _command(run: Run, data: Mapping[str, Any]) -> str:
    """Returns the section with the command that repeats the run; "" if its settings changed during the run."""
    if any(row.continued_with for row in run.history):
        return ""
    flags = [f"--{name.replace('_', '-')} {text}" for name, text in run.config.as_text().items()]
    # A stranger may have written the source, and a folder's path is private.
    source = shlex.quote(data["source"]) if data.get("source") in _SOURCES or _address(data) else "FOLDER"
    command = " ".join(["python -m trainer train", *flags, f"--data {source}"])
    return f"## Train it again\n\n```sh\n{command}\n```\n\n"


def _address(data: Mapping[str, Any]) -> DatasetAddress | None:
    """Returns the address of the dataset on the Hub that a run was trained on, if it has one."""
    source = data.get("source")
    address = parse(source) if isinstance(source, str) else None
    return address if address and address.is_fixed and data.get("revision") == address.revision else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _escape(value: Any) -> str:
    """Returns the text so that Markdown and HTML display it as it is: class and data names may come from strangers."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return "".join(f"\\{letter}" if letter in r"\`*_[]{}()#+-!|~:" else letter for letter in text)
