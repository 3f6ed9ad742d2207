"""The networks: the tutorial's and `fast`."""

import pytest
import torch
from torch import nn

from trainer.networks.architectures import FAST_LAYERS, cosine_filters, memory_format, num_parameters
from trainer.networks.model import OptimizerLabModel

NAMES = [f"class {number}" for number in range(10)]


def quick(**settings):
    return OptimizerLabModel(**{"class_names": NAMES, **settings})


def fast(**settings):
    return quick(architecture="fast", **settings)


def layers(model):
    """Returns the layers in the tutorial's notation."""
    names = []
    for layer in model.network:
        match layer:
            case nn.Conv2d():
                names.append(
                    f"conv{layer.kernel_size[0]}x{layer.kernel_size[1]}({layer.in_channels}→{layer.out_channels})"
                )
                assert (layer.padding, layer.stride) == ((2, 2), (1, 1))
            case nn.MaxPool2d():
                names.append(f"pool{layer.kernel_size}")
            case nn.Linear():
                names.append(f"linear({layer.in_features}→{layer.out_features})")
            case nn.Identity():
                pass
            case _:
                names.append(type(layer).__name__.lower())
    return " ".join(names)


TUTORIAL = "conv5x5(3→32) pool2 conv5x5(32→32) pool2 conv5x5(32→64) pool2 flatten linear(1024→64) linear(64→10)"


def test_the_network_is_the_tutorials():
    """It has 145,578 parameters and the tutorial's layers in their order; settings add relu and softmax.

    ReLU after a max-pooling gives what it gives before it: tests/networks/test_predict.py computes that.
    """
    assert sum(parameter.numel() for parameter in quick().parameters()) == 145_578
    assert layers(quick(activation="none")) == TUTORIAL
    assert layers(quick(activation="none", softmax=True)) == TUTORIAL + " softmax"
    with_relu = TUTORIAL.replace(" pool2", " pool2 relu").replace("1024→64)", "1024→64) relu")
    assert layers(quick()) == with_relu


@pytest.mark.parametrize("size", [8, 24, 32, 40, 128])
def test_fast_takes_every_size(size):
    """Every image size that config.json may have gives logits, from the same 1,166,506 parameters."""
    model = fast(image_size=size).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_166_506
    outputs = model(torch.zeros(2, 3, size, size, dtype=torch.uint8))
    assert outputs.shape == (2, 10)
    assert torch.equal(outputs[0], outputs[1])


def test_the_activations_of_fast():
    """The activation follows each normalisation, or is absent; softmax is last."""
    kinds = [type(layer).__name__ for layer in fast(softmax=True).network]
    assert kinds.count("Conv2d") == kinds.count("BatchNorm2d") == kinds.count("ReLU") == len(FAST_LAYERS) == 7
    assert all(kinds[index - 1] == "BatchNorm2d" for index, kind in enumerate(kinds) if kind == "ReLU")
    assert kinds[-2:] == ["Linear", "Softmax"]
    assert "ReLU" not in [type(layer).__name__ for layer in fast(activation="none").network]


def test_fast_averages_with_the_mirror_image(images):
    """In evaluation mode, fast returns the mean of its outputs for a picture and its mirror image.

    quick does not, nor does fast without `mirror`.
    """
    pictures = images.test.images[:8]
    mirrored = pictures.flip(-1)
    mirrors = ((fast(), True), (fast(softmax=True), True), (fast(mirror=False), False), (quick(), False))
    for model, is_mirrored in mirrors:
        model.train()(images.test.images[8:72])  # so that it has running statistics
        assert not torch.allclose(model(pictures), model(mirrored))
        model.eval()
        layers = torch.nn.Sequential(*model.network)
        pixels = [(view / 255 - model.mean) / model.std for view in (pictures, mirrored)]
        once, again = map(layers, pixels)
        torch.testing.assert_close(model(pictures), (once + again) / 2 if is_mirrored else once)
        assert torch.allclose(model(pictures), model(mirrored)) == is_mirrored


def test_the_first_filters_decorrelate_pictures(images):
    """Sixteen orthonormal filters and their negatives; their outputs correlate far less than random filters'."""
    filters = cosine_filters()
    assert torch.equal(fast().network.conv1.weight, filters)
    flat = filters.flatten(1)
    torch.testing.assert_close(flat[:16] @ flat[:16].T, torch.eye(16), atol=1e-6, rtol=0)
    assert torch.equal(flat[16:], -flat[:16])

    def correlation(filters):
        outputs = nn.functional.conv2d(images.train.images[:100].float(), filters)
        return torch.corrcoef(outputs.transpose(0, 1).flatten(1)).abs().mean()

    random = nn.init.normal_(torch.empty_like(filters), generator=torch.Generator().manual_seed(0))
    assert correlation(filters[:16]) < correlation(random[:16]) / 2


def test_parameters_are_counted_without_a_network():
    """Those of the sizes in the docstrings, and of another size as a network has them."""
    assert [num_parameters(name, 10, 32) for name in ("quick", "fast")] == [145_578, 1_166_506]
    model = quick(class_names=NAMES[:2], image_size=16)
    assert num_parameters("quick", 2, 16) == sum(weights.numel() for weights in model.parameters())


def test_the_other_pictures_of_a_batch_have_no_effect():
    """In evaluation mode, fast normalises by its running statistics."""
    model = fast().eval()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.testing.assert_close(model.probabilities(images)[:1], model.probabilities(images[:1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_only_apples_gpus_have_another_layout():
    """torch's gradients in channels_last are wrong there."""
    layouts = {name: memory_format(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert layouts == {"cpu": torch.channels_last, "cuda": torch.channels_last, "mps": torch.contiguous_format}
