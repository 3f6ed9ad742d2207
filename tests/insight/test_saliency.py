"""Saliency: exact for a linear network, and on a trained network it finds the drawn shape."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from trainer.images.image_data import load_images, subset
from trainer.insight.saliency import occlusion, overlay, smooth_grad
from trainer.networks.model import OptimizerLabModel
from trainer.palette import TEST, TRAIN


def linear(*, softmax=False, seed=0):
    """A model whose network is one linear layer."""
    model = OptimizerLabModel(
        class_names=("a", "b", "c"), image_size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), softmax=softmax
    )
    torch.manual_seed(seed)
    model.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    if softmax:
        model.network.append(nn.Softmax(dim=1))
    return model.eval()


@pytest.fixture
def pixels():
    return torch.randint(256, (3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_gradient_of_a_linear_network_is_its_weights(pixels, softmax):
    """Noise changes nothing, and neither does a last Softmax; with the bias the pixels add up to the logit."""
    model = linear(softmax=softmax)
    layer = model.network[1]
    inputs = (pixels / 255 - model.mean[0]) / model.std[0]
    for label in range(3):
        expected = (layer.weight[label].view(3, 8, 8) * inputs).sum(0)
        saliency = smooth_grad(model, pixels, label)
        assert torch.allclose(saliency, expected, atol=1e-5)
        logit = layer(inputs.reshape(1, -1))[0, label]
        assert (saliency.sum() + layer.bias[label]).item() == pytest.approx(logit.item(), abs=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_occlusion_is_counted_square_by_square(pixels):
    """Each pixel has the mean fall of the probability over the squares that hide it."""
    model, label = linear(), 1
    grey = (255 * model.mean[0]).round().byte()
    falls = [[[] for _ in range(8)] for _ in range(8)]
    whole = model.probabilities(pixels.unsqueeze(0))[0, label]
    for top in range(-1, 8):
        for left in range(-1, 8):
            hidden, covered = pixels.clone(), [(y, x) for y in (top, top + 1) for x in (left, left + 1)]
            covered = [(y, x) for y, x in covered if 0 <= y < 8 and 0 <= x < 8]
            for y, x in covered:
                hidden[:, y, x] = grey[:, 0, 0]
            fall = whole - model.probabilities(hidden.unsqueeze(0))[0, label]
            for y, x in covered:
                falls[y][x].append(fall.item())
    expected = torch.tensor([[sum(cell) / len(cell) for cell in row] for row in falls])
    assert torch.allclose(occlusion(model, pixels, label), expected, atol=1e-5)


def test_the_same_call_gives_the_same_map(pixels):
    """The noise has a seed; with another one, a network that is not linear gives another map."""
    model = OptimizerLabModel(class_names=("a", "b"), image_size=8, activation="relu").eval()
    first, again, other = (smooth_grad(model, pixels, 0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_overlay_colours_what_is_not_zero(pixels):
    """Zero leaves the grey picture; the largest values hide it, in one colour each."""
    values = torch.zeros(8, 8)
    values[0, 0], values[0, 1], values[0, 2] = 2, -2, 5
    drawn = overlay(pixels, values, largest=2)
    grey = pixels.float().mean(0).round().byte()
    assert torch.equal(drawn[:, 1:], grey.expand(3, -1, -1)[:, 1:])
    colors = [tuple(drawn[:, 0, column].tolist()) for column in range(3)]
    assert [f"#{bytes(color).hex()}" for color in colors] == [TEST, TRAIN, TEST]
    assert torch.equal(overlay(pixels, torch.zeros(8, 8), largest=0), grey.expand(3, -1, -1))


@pytest.mark.slow
def test_a_trained_network_looks_at_the_shape(trained):
    """Hiding the middle of a picture, where the shape is drawn, costs more than hiding its border."""
    from trainer.settings.config import TrainConfig

    data = load_images("synthetic")
    data = replace(data, test=subset(data.test, 500))
    folder, run = trained(TrainConfig(optimizer="adam", lr=0.002, epochs=4, num_images=3000, batch_size=32), data)
    assert run.history[-1].test_accuracy > 0.5
    model = OptimizerLabModel.from_pretrained(folder)
    middle, border = [], []
    for picture, label in zip(data.test.images[:50], data.test.labels[:50].tolist(), strict=True):
        if model.probabilities(picture.unsqueeze(0))[0, label] > 0.5:
            falls = occlusion(model, picture, label)
            middle.append(falls[8:24, 8:24].mean())
            border.append(torch.cat([falls[:4].flatten(), falls[-4:].flatten()]).mean())
    assert sum(middle) > 3 * sum(border)
