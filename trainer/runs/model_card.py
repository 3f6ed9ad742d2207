"""The model card: a run's README.md, written from the run."""

import html
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from trainer.images.readers import CIFAR10_JPEG_NAME, CIFAR10_NAME
from trainer.networks.model import TAG
from trainer.runs.curve import CURVE_FILE
from trainer.runs.run import Run

# The settings that a list of checkpoints shows, as the front matter's `optimizer_lab`.
HEADLINES = ("optimizer", "lr", "scheduler", "epochs")

_SOURCES = ("hub", "torchvision", "synthetic")

_MIRRORED = "; the answer is the mean of those for a picture and for its mirror image"
_TEXT = """---
{metadata}
---

# {title}

A small convolutional network (`{architecture}`), trained with Optimizer Lab.

It tells {num_classes} classes apart: {class_names}.
It knows nothing else: every picture is one of these to it.

After epoch {epoch} of {epochs} it had {accuracy:.2%} of the test pictures of {data} right (loss {loss:.4f}).
{curve}
## Use it

```python
from trainer import OptimizerLabModel, classify

model = OptimizerLabModel.from_pretrained("{place}")  # {remark}
print(classify(model, "picture.png").confidences)
```

`trainer` is the library of the Optimizer Lab Space. The weights alone are plain safetensors:
`safetensors.torch.load_file("model.safetensors")`; `config.json` says how pictures are prepared{mirrored}.

{again}## Settings

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
    has_picture: bool = False,
    has_untrained: bool = False,
    goes_on: bool = False,
) -> str:
    """The card as Markdown with the Hub's front matter: results as model-index, use, settings, history.

    `repo_id`, of letters, digits and `/._-` alone: where it will be; None: in a folder. `has_picture`: whether the
    picture of the curves lies beside it. `has_untrained`: whether epoch 0 has its tag there.
    `goes_on`: whether the run goes on after its history with other settings, which then are the config's.
    """
    last = run.history[-1]
    settings = run.config.settings()
    is_cifar10 = data["name"] in (CIFAR10_NAME, CIFAR10_JPEG_NAME)
    remark = "this repo" if repo_id else "this folder"
    if has_untrained:
        remark = 'revision="epoch-0000": the untrained network'
    title = f"{model_config['architecture']} by {run.config.optimizer}, {run.config.scheduler}"
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="pytorch",
        pipeline_tag="image-classification",
        tags=[*(["cifar10"] if is_cifar10 else []), "image-classification", TAG],
        datasets=["uoft-cs/cifar10"] if is_cifar10 else None,
        optimizer_lab={name: settings[name] for name in HEADLINES if name in settings},
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type="uoft-cs/cifar10" if is_cifar10 else "other",
                dataset_name=data["name"],
                dataset_split="test",
                metric_type="accuracy",
                metric_value=last.test_accuracy,
            )
        ],
    )
    return _TEXT.format(
        metadata=metadata.to_yaml(),
        title=title,
        architecture=model_config["architecture"],
        num_classes=len(model_config["class_names"]),
        class_names=", ".join(map(_escaped, model_config["class_names"])),
        data=_escaped(data["name"]),
        epoch=last.epoch,
        epochs=run.config.epochs,
        accuracy=last.test_accuracy,
        loss=last.test_loss,
        curve=f"\n![Loss and test accuracy over the epochs]({CURVE_FILE})\n" if has_picture else "",
        place=repo_id or ".",
        remark=remark,
        mirrored=_MIRRORED if model_config["architecture"] == "fast" else "",
        again="" if goes_on else _again(run, data),
        settings="\n".join(f"| `{name}` | {_escaped(value)} |" for name, value in settings.items()),
        history="\n".join(
            f"| {row.epoch} | {_number(row.train_loss)} | {_number(row.test_loss)} | {row.test_accuracy:.2%} "
            f"| {_number(row.lr)} |"
            for row in run.history
        ),
    )


def _again(run: Run, data: Mapping[str, Any]) -> str:
    """The command that trains the same; none for a run that went on with other settings halfway."""
    if any(row.continued_with for row in run.history):
        return ""
    flags = [f"--{name.replace('_', '-')} {text}" for name, text in run.config.as_text().items()]
    # Where the pictures come from may be told by a stranger, or be a folder of somebody's computer.
    source = data.get("source") if data.get("source") in _SOURCES else "FOLDER"
    command = " ".join(["python -m trainer train", *flags, f"--data {source}"])
    return f"## Train it again\n\n```sh\n{command}\n```\n\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _escaped(value: Any) -> str:
    """Text that Markdown and HTML show as it is: class and data names may come from anyone."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return "".join(f"\\{letter}" if letter in r"\`*_[]{}()#+-!|~:" else letter for letter in text)
