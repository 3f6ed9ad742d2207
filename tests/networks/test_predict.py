"""Classification: the library, the command line, the README's code and arithmetic by hand agree."""

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.io import write_png
from torchvision.transforms.v2 import functional

from trainer import OptimizerLabModel, TrainConfig, classify, train
from trainer.cli.main import main
from trainer.images.image_data import facts
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.runs.run_folder import writing


@pytest.fixture(scope="module")
def folders(images, tmp_path_factory):
    """The folders of two runs, without and with softmax."""
    made = {}
    for softmax in (False, True):
        config = TrainConfig(epochs=1, num_images=128, batch_size=16, scheduler="constant", softmax=softmax)
        folder = made[softmax] = tmp_path_factory.mktemp("runs") / f"softmax-{softmax}"
        with writing(folder):
            list(record(train(config, images), Run(config=config), folder, facts(images)))
    return made


@pytest.fixture(scope="module")
def picture(images, tmp_path_factory):
    """A large picture that is not square."""
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    pixels = functional.resize(images.test.images[3].contiguous(), [60, 90])
    write_png(pixels, str(path))
    return path


def by_hand(folder, path):
    """Returns class probabilities calculated from the two files by torch's functions, with Pillow's pixels."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name.removeprefix("network."): t for name, t in load_file(folder / "model.safetensors").items()}
    with Image.open(path) as image:
        size = min(image.size)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        square = image.convert("RGB").crop((left, top, left + size, top + size))
    pixels = torch.tensor(list(square.tobytes()), dtype=torch.uint8).reshape(size, size, 3).permute(2, 0, 1)
    pixels = functional.resize(pixels.contiguous(), [config["image_size"]] * 2, antialias=True)
    x = pixels[None].float() / 255
    x = (x - torch.tensor(config["mean"]).view(1, 3, 1, 1)) / torch.tensor(config["std"]).view(1, 3, 1, 1)
    for layer in ("conv1", "conv2", "conv3"):
        x = torch.nn.functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=2)
        x = torch.nn.functional.max_pool2d(x.relu(), 2)
    x = torch.nn.functional.linear(x.flatten(1), weights["linear1.weight"], weights["linear1.bias"]).relu()
    x = torch.nn.functional.linear(x, weights["linear2.weight"], weights["linear2.bias"])
    return dict(zip(config["class_names"], x.softmax(1)[0].tolist(), strict=True))


@pytest.mark.parametrize("softmax", [False, True])
def test_every_way_gives_the_same_answer(softmax, folders, picture, capsys, monkeypatch, tmp_path):
    """classify(), `classify --json`, the README's code and the arithmetic by hand agree to 1e-6.

    A network with a softmax gets no second one.
    """
    folder = folders[softmax]
    expected = by_hand(folder, picture)
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)

    prediction = classify(OptimizerLabModel.from_pretrained(folder), picture)
    assert prediction.confidences == pytest.approx(expected, abs=1e-6)
    assert prediction.label == max(expected, key=expected.get) == next(iter(prediction.confidences))
    assert list(prediction.confidences.values()) == sorted(prediction.confidences.values(), reverse=True)

    assert main(["classify", str(folder), str(picture), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() == {"image", "label", "confidences"}
    assert (printed["image"], printed["label"]) == (str(picture), prediction.label)
    assert printed["confidences"] == pytest.approx(expected, abs=1e-6)

    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.copy(picture, copy)
    monkeypatch.chdir(copy)
    (snippet,) = re.findall(r"```python\n(.*?)```", (copy / "README.md").read_text(), re.DOTALL)
    exec(snippet, {})
    from_readme = eval(capsys.readouterr().out)
    assert from_readme == pytest.approx(expected, abs=1e-6)


def test_the_probabilities_differ(folders, picture):
    """By far more than 1e-6, so that the comparison above can fail."""
    values = by_hand(folders[False], picture).values()
    assert max(values) - min(values) > 0.01


@pytest.mark.parametrize(
    "change",
    [{"resize": "squash"}, {"mean": [0.1, 0.2, 0.3]}, {"std": [0.5, 0.5, 0.5]}],
    ids=["resize", "mean", "std"],
)
def test_preprocessing_comes_from_config_json(change, folders, picture, tmp_path):
    """Another resize rule, mean or std in the file changes the probabilities: the code has no values of its own."""
    folder = shutil.copytree(folders[False], tmp_path / "run")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    assert all(config[name] != value for name, value in change.items())
    before = classify(OptimizerLabModel.from_pretrained(folder), picture)
    path.write_text(json.dumps({**config, **change}))
    after = classify(OptimizerLabModel.from_pretrained(folder), picture)
    assert max(abs(before.confidences[name] - after.confidences[name]) for name in config["class_names"]) > 1e-4
    if "resize" in change:
        whole = functional.resize(torch.from_numpy(pixels_of(picture)), [32, 32], antialias=True)
        assert torch.equal(after.seen, whole)
        assert not torch.equal(before.seen, whole)
    else:
        assert torch.equal(after.seen, before.seen)


def pixels_of(path):
    import numpy

    with Image.open(path) as image:
        return numpy.ascontiguousarray(numpy.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_the_data_sets_statistics_are_in_config_json(folders, images):
    """Pictures are normalised by the statistics of the training pictures."""
    config = json.loads((folders[False] / "config.json").read_text())
    pixels = images.train.images[:128].double() / 255
    assert config["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert config["std"] == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-6)
    assert config["class_names"] == list(images.class_names)


def test_pixels_are_taken_as_well(folders, images):
    """A picture of the network's own size is not resized."""
    pixels = images.test.images[0]
    prediction = classify(OptimizerLabModel.from_pretrained(folders[False]), pixels)
    assert torch.equal(prediction.seen, pixels)
    assert set(prediction.confidences) == set(images.class_names)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"no picture"])
def test_no_picture_is_a_sentence(content, folders, tmp_path):
    """A file that cannot be read raises a UserError."""
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"\.$"):
        classify(OptimizerLabModel.from_pretrained(folders[False]), tmp_path / "x.png")
