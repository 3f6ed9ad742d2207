"""OptimizerLabModel: its outputs, its files, and the checks of files from strangers."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.errors import UserError
from trainer.networks.files import largest_file
from trainer.networks.model import OptimizerLabModel

NAMES = [f"class {number}" for number in range(10)]


def quick(**settings):
    return OptimizerLabModel(**{"class_names": NAMES, **settings})


def fast(**settings):
    return quick(architecture="fast", **settings)


@pytest.mark.parametrize("make", [quick, fast])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_no_input_is_changed(make, dtype, layout, images):
    """A second call returns the same, for every dtype and memory layout, with and without a gradient."""
    model = make(mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4]).eval()
    pictures = images.test.images[:8].to(dtype=dtype, memory_format=layout)
    before = pictures.clone()
    expected = model(images.test.images[:8])
    assert torch.equal(model(pictures), expected)
    assert torch.equal(model(pictures), expected)
    assert torch.equal(model.probabilities(pictures), model.probabilities(images.test.images[:8]))
    assert torch.equal(pictures, before)
    if dtype.is_floating_point:
        model(pictures.requires_grad_()).sum().backward()
        assert pictures.grad.isfinite().all()
        assert pictures.grad.any()
        assert torch.equal(pictures, before)


def test_pixels_are_normalised_inside():
    """The network receives (pixel / 255 - mean) / std of uint8 pixels."""
    model = quick(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    by_hand = (images / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.network(by_hand), atol=1e-5, rtol=0)
    assert images.dtype == torch.uint8


def test_softmax_is_applied_once():
    """A network with a softmax returns probabilities, one without logits; `probabilities` is the same for both."""
    plain, soft = quick(), quick(softmax=True)
    soft.load_state_dict(plain.state_dict())
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain(images).softmax(1)
        torch.testing.assert_close(soft(images), expected)
    torch.testing.assert_close(plain.probabilities(images), expected)
    torch.testing.assert_close(soft.probabilities(images), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"softmax": True, "activation": "none"},
        {"image_size": 8, "class_names": ["a", "b"]},
        {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "resize": "squash"},
        {"class_names": ["ä", "日本", "<b>", "a, b", "```"]},
        {"architecture": "fast", "softmax": True, "image_size": 16, "class_names": ["a", "b", "c"]},
        {"architecture": "fast", "mirror": False},
    ],
)
def test_it_comes_back_from_its_folder(settings, tmp_path):
    """from_pretrained restores the settings and weights that save_pretrained wrote, in evaluation mode."""
    model = quick(**settings)
    model.save_pretrained(tmp_path)
    again = OptimizerLabModel.from_pretrained(tmp_path)
    assert json.dumps(again.config) == json.dumps(model.config)
    assert not again.training
    for name in ("class_names", "image_size", "resize", "softmax"):
        assert getattr(again, name) == getattr(model, name)
    assert torch.equal(again.mean, model.mean)
    assert torch.equal(again.std, model.std)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert {"mean", "std"}.isdisjoint(model.state_dict())


@pytest.mark.parametrize("build", [quick, fast])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_converted(dtype, build, tmp_path):
    """Weights in half precision become float32; integers stay as they are."""
    model = build()
    model.save_pretrained(tmp_path)
    smaller = {
        name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(smaller, tmp_path / "model.safetensors")
    again = OptimizerLabModel.from_pretrained(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], smaller[name].to(tensor.dtype))


@pytest.fixture
def folder(tmp_path):
    quick().save_pretrained(tmp_path)
    return tmp_path


HOSTILE_CONFIGS = {
    "a huge image": {"image_size": 1_000_000},
    "an image of no size": {"image_size": 0},
    "a negative image": {"image_size": -8},
    "an odd image": {"image_size": 33},
    "an image size as text": {"image_size": "32"},
    "an image size that is true": {"image_size": True},
    "an image size that is no whole number": {"image_size": 32.0},
    "no class": {"class_names": []},
    "one class": {"class_names": ["a"]},
    "too many classes": {"class_names": [str(number) for number in range(1001)]},
    "a text for class names": {"class_names": "abcdefghij"},
    "an object for class names": {"class_names": {"a": 1, "b": 2}},
    "numbers for class names": {"class_names": [1, 2]},
    "an empty name": {"class_names": ["", "b"]},
    "a blank name": {"class_names": [" ", "b"]},
    "a long name": {"class_names": ["a" * 101, "b"]},
    "a newline in a name": {"class_names": ["a\nb", "c"]},
    "a NUL in a name": {"class_names": ["a\0b", "c"]},
    "an escape in a name": {"class_names": ["a\x1b[31m", "c"]},
    "a direction override in a name": {"class_names": ["a\u202eb", "c"]},
    "half a surrogate in a name": {"class_names": ["a\ud800", "c"]},
    "the same name twice": {"class_names": ["a", "a"]},
    "names missing": {"class_names": None},
    "a mean that is no number": {"mean": [float("nan")] * 3},
    "a mean of two": {"mean": [0.5, 0.5]},
    "a mean out of range": {"mean": [0.5, 0.5, 5]},
    "a mean as text": {"mean": "0.5"},
    "a std of zero": {"std": [0, 0.5, 0.5]},
    "a std that is infinite": {"std": [float("inf")] * 3},
    "a std that is true": {"std": [True, True, True]},
    "an unknown network": {"architecture": "resnet50"},
    "a network as a list": {"architecture": ["quick"]},
    "a network as an object": {"architecture": {"quick": 1}},
    "an unknown activation": {"activation": "gelu"},
    "an activation as a list": {"activation": []},
    "softmax as a number": {"softmax": 1},
    "softmax as text": {"softmax": "false"},
    "an unknown resize rule": {"resize": "stretch"},
    "a resize rule as an object": {"resize": {}},
    "mirror as a number": {"mirror": 0},
}


@pytest.mark.parametrize("case", HOSTILE_CONFIGS)
def test_a_strangers_config_is_checked(case, folder):
    """Any other content of config.json raises an error with one sentence."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **HOSTILE_CONFIGS[case]}))
    with pytest.raises(ValueError, match=r"\.$") as error:
        OptimizerLabModel.from_pretrained(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\ufeff{}", "[" * 100_000, '{"mean": ' + "1" * 5000 + "}"])
def test_a_config_that_is_not_json(text, folder):
    """Also one whose numbers Python refuses to convert: by default those of more than 4,300 digits."""
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        OptimizerLabModel.from_pretrained(folder)


def test_a_config_without_class_names(folder):
    """The class names have no default."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["class_names"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks class_names"):
        OptimizerLabModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b'{"a": "\xff"}', b'{"a":' * 100_000, b'{"a": "' + b"x" * (2 << 20) + b'"}'],
    ids=["empty", "broken", "list", "number", "null", "not UTF-8", "deep", "2 MB"],
)
def test_a_config_that_is_no_object(content, folder):
    """No JSON, no object, or a file that is too large."""
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is .*\.$"):
        OptimizerLabModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(name, folder):
    """The error names it."""
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        OptimizerLabModel.from_pretrained(folder)


def rewritten(change):
    def rewrite(path):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return rewrite


def changed(name, function):
    def change(tensors):
        tensors[name] = function(tensors[name]).contiguous()

    return rewritten(change)


class Bomb:
    """Unpickling it creates a folder."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


HOSTILE_WEIGHTS = {
    "a tensor missing": rewritten(lambda tensors: tensors.pop("network.conv1.bias")),
    "a tensor too many": rewritten(lambda tensors: tensors.update(extra=torch.zeros(1))),
    "no tensors": rewritten(lambda tensors: tensors.clear()),
    "another shape": changed("network.conv1.bias", lambda t: t[:16]),
    "the same numbers in another shape": changed("network.linear2.weight", lambda t: t.T),
    "whole numbers": changed("network.conv1.bias", lambda t: t.int()),
    "float64": changed("network.conv1.bias", lambda t: t.double()),
    "NaN": changed("network.conv1.bias", lambda t: t * float("nan")),
    "infinity": changed("network.linear1.weight", lambda t: t + float("inf")),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 100),
    "cut in the header": lambda path: os.truncate(path, 50),
    "0 bytes": lambda path: os.truncate(path, 0),
    "8 bytes": lambda path: path.write_bytes(b"\xff" * 8),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "torch's own pickle": lambda path: torch.save({"network.conv1.bias": torch.zeros(32)}, path),
    "far too much": rewritten(lambda tensors: tensors.update(extra=torch.zeros(1_000_000))),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("case", HOSTILE_WEIGHTS)
def test_strangers_weights_are_checked(case, folder, monkeypatch):
    """Only a safetensors file with exactly the network's tensors, all finite, is accepted; nothing is unpickled."""
    monkeypatch.chdir(folder)
    HOSTILE_WEIGHTS[case](folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors .*\.$") as error:
        OptimizerLabModel.from_pretrained(folder)
    assert str(folder) not in str(error.value)
    assert not (folder / "exploded").exists()


HOSTILE_STATISTICS = {
    "a variance below 0": changed("network.norm1.running_var", lambda t: t - 2),
    "a mean that is no number": changed("network.norm1.running_mean", lambda t: t * float("nan")),
    "a count with a fraction": changed("network.norm1.num_batches_tracked", lambda t: t.float()),
    "a count for each filter": changed("network.norm1.num_batches_tracked", lambda t: t.repeat(32)),
    "no count": rewritten(lambda tensors: tensors.pop("network.norm7.num_batches_tracked")),
}


@pytest.mark.parametrize("case", HOSTILE_STATISTICS)
def test_strangers_statistics_are_checked(case, tmp_path):
    """The buffers of batch normalisation are checked like the weights."""
    fast().save_pretrained(tmp_path)
    HOSTILE_STATISTICS[case](tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^model\.safetensors .*\.$"):
        OptimizerLabModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("build", [quick, fast])
def test_the_largest_file(build, tmp_path):
    """The limit on the size of a file is a little above the size of the real one."""
    build().save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < largest_file(build()) < size + (2 << 20)


def test_no_pickle_is_read(folder):
    """If model.safetensors is missing, pytorch_model.bin is not read instead."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        OptimizerLabModel.from_pretrained(folder)


def test_loading_does_not_depend_on_global_randomness(folder):
    """from_pretrained returns the same for every state of torch's generator."""
    torch.manual_seed(1)
    one = OptimizerLabModel.from_pretrained(folder).state_dict()
    torch.manual_seed(2)
    other = OptimizerLabModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
