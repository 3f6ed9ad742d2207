"""The networks: the tutorial's and `fast`."""

import pytest
import torch
from torch import nn

from trainer.networks.architectures import FAST_LAYERS, cosine_filters, memory_format
from trainer.networks.model import OptimizerLabModel

NAMES = [f"class {number}" for number in range(10)]


def quick(**settings):
    return OptimizerLabModel(**{"class_names": NAMES, **settings})


def fast(**settings):
    return quick(architecture="fast", **settings)


def layers(model):
    """Each layer as the tutorial would write it."""
    shown = []
    for layer in model.network:
        match layer:
            case nn.Conv2d():
                shown.append(
                    f"conv{layer.kernel_size[0]}x{layer.kernel_size[1]}({layer.in_channels}→{layer.out_channels})"
                )
                assert (layer.padding, layer.stride) == ((2, 2), (1, 1))
            case nn.MaxPool2d():
                shown.append(f"pool{layer.kernel_size}")
            case nn.Linear():
                shown.append(f"linear({layer.in_features}→{layer.out_features})")
            case nn.Identity():
                pass
            case _:
                shown.append(type(layer).__name__.lower())
    return " ".join(shown)


TUTORIAL = "conv5x5(3→32) pool2 conv5x5(32→32) pool2 conv5x5(32→64) pool2 flatten linear(1024→64) linear(64→10)"


def test_the_network_is_the_tutorials():
    """145,578 parameters, the tutorial's layers in its order; relu and softmax come where the settings say."""
    assert sum(parameter.numel() for parameter in quick().parameters()) == 145_578
    assert layers(quick(activation="none")) == TUTORIAL
    assert layers(quick(activation="none", softmax=True)) == TUTORIAL + " softmax"
    with_relu = TUTORIAL.replace(" pool2", " relu pool2").replace("1024→64)", "1024→64) relu")
    assert layers(quick()) == with_relu


@pytest.mark.parametrize("size", [8, 24, 32, 40, 128])
def test_fast_takes_every_size(size):
    """Logits for pictures of every size that config.json may name, from the same 1,166,506 parameters."""
    model = fast(image_size=size).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_166_506
    outputs = model(torch.zeros(2, 3, size, size, dtype=torch.uint8))
    assert outputs.shape == (2, 10)
    assert torch.equal(outputs[0], outputs[1])


def test_fast_bends_or_not():
    """The activation comes after each normalisation, or nowhere; softmax at the end."""
    kinds = [type(layer).__name__ for layer in fast(softmax=True).network]
    assert kinds.count("Conv2d") == kinds.count("BatchNorm2d") == kinds.count("ReLU") == len(FAST_LAYERS) == 7
    assert all(kinds[place - 1] == "BatchNorm2d" for place, kind in enumerate(kinds) if kind == "ReLU")
    assert kinds[-2:] == ["Linear", "Softmax"]
    assert "ReLU" not in [type(layer).__name__ for layer in fast(activation="none").network]


def test_a_picture_is_judged_by_its_mirror_image_too(images):
    """In evaluation fast gives the mean of what it gives for a picture and for its mirror image; quick does not."""
    pictures = images.test.images[:8]
    mirrored = pictures.flip(-1)
    for model, is_mirrored in ((fast(), True), (fast(softmax=True), True), (quick(), False)):
        model.train()(images.test.images[8:72])  # running statistics of its own
        assert not torch.allclose(model(pictures), model(mirrored))
        model.eval()
        layers = torch.nn.Sequential(*model.network)
        pixels = [(view / 255 - model.mean) / model.std for view in (pictures, mirrored)]
        once, again = map(layers, pixels)
        torch.testing.assert_close(model(pictures), (once + again) / 2 if is_mirrored else once)
        assert torch.allclose(model(pictures), model(mirrored)) == is_mirrored


def test_the_first_filters_take_pictures_apart(images):
    """Sixteen at right angles and their negatives, whose answers go together far less than those of random filters."""
    filters = cosine_filters()
    assert torch.equal(fast().network.conv1.weight, filters)
    flat = filters.flatten(1)
    torch.testing.assert_close(flat[:16] @ flat[:16].T, torch.eye(16), atol=1e-6, rtol=0)
    assert torch.equal(flat[16:], -flat[:16])

    def togetherness(some):
        answers = nn.functional.conv2d(images.train.images[:100].float(), some)
        return torch.corrcoef(answers.transpose(0, 1).flatten(1)).abs().mean()

    random = nn.init.normal_(torch.empty_like(filters), generator=torch.Generator().manual_seed(0))
    assert togetherness(filters[:16]) < togetherness(random[:16]) / 2


def test_a_picture_is_judged_alone():
    """In evaluation fast's normalisation is by what it learned: the other pictures of a batch play no part."""
    model = fast().eval()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.testing.assert_close(model.probabilities(images)[:1], model.probabilities(images[:1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_only_apples_gpus_have_another_layout():
    """Where torch's gradients are wrong in channels_last."""
    layouts = {name: memory_format(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert layouts == {"cpu": torch.channels_last, "cuda": torch.channels_last, "mps": torch.contiguous_format}
