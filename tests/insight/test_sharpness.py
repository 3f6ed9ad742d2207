"""Sharpness: the largest eigenvalue of the full Hessian, at every epoch, with the limit 2/lr."""

import json
import math

import pytest
import torch
from torch.nn import functional

from trainer.cli.main import main
from trainer.images.image_data import Split
from trainer.insight.plane import read_snapshots, vector_of
from trainer.insight.sharpness import (
    Eigenvalue,
    Measured,
    ProductComputed,
    SharpnessMeasured,
    hessian,
    largest_eigenvalue,
    measure,
    stability_limit,
    training_loss,
)
from trainer.insight.timeline import of_folder
from trainer.progress import Steps
from trainer.settings.config import TrainConfig


class Tiny(torch.nn.Module):
    """A network with a convolution, batch normalisation, ReLU and pooling: 66 weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 2, 3, bias=False),
            torch.nn.BatchNorm2d(2),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(6),
            torch.nn.Flatten(),
            torch.nn.Linear(2, 2),
        )

    def forward(self, images):
        return self.layers(images.to(self.layers[0].weight.dtype) / 255 - 0.5)


def end_of(search):
    """Returns the result of a search, and the number of its products."""
    steps = Steps(search)
    count = sum(1 for _ in steps)
    return steps.value, count


@pytest.fixture
def pictures(tiny):
    return Split(images=tiny.train.images[:20], labels=tiny.train.labels[:20] % 2)


def full_hessian(model, pictures, label_smoothing):
    """Returns the Hessian, float64, one row of second derivatives after another."""
    model = model.double()
    weights = list(model.parameters())
    outputs = model(pictures.images)
    loss = functional.cross_entropy(outputs, pictures.labels, label_smoothing=label_smoothing)
    gradient = flat(torch.autograd.grad(loss, weights, create_graph=True))
    rows = [torch.autograd.grad(entry, weights, retain_graph=True, materialize_grads=True) for entry in gradient]
    return torch.stack([flat(row) for row in rows])


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_it_is_the_largest_eigenvalue_of_the_full_hessian(pictures, label_smoothing):
    """To a thousandth; the products are those of the full matrix."""
    model = Tiny().train()
    product = hessian(model, pictures, label_smoothing)
    start = torch.randn(len(vector_of(model)), generator=torch.Generator().manual_seed(0))
    found, _ = end_of(largest_eigenvalue(product, start, tolerance=1e-4))
    multiplied = product(start)
    statistics = [buffer.clone() for buffer in model.buffers()]
    full = full_hessian(Tiny().train(), pictures, label_smoothing)
    assert torch.allclose(multiplied, (full @ start.double()).float(), rtol=1e-3, atol=1e-4)
    assert found.value == pytest.approx(torch.linalg.eigvalsh(full)[-1].item(), rel=1e-3)
    assert all(torch.equal(*pair) for pair in zip(statistics, Tiny().buffers(), strict=True)), "left as they were"


def test_the_largest_not_the_most_negative_eigenvalue():
    """A good start needs fewer products; a matrix of few eigenvalues only as many as it has."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.linalg.qr(torch.randn(50, 50, generator=generator)).Q
    values = torch.linspace(-30, 9, 50)
    values[-1] = 12
    matrix = vectors @ torch.diag(values) @ vectors.T
    start = torch.randn(50, generator=generator)
    found, count = end_of(largest_eigenvalue(lambda v: matrix @ v, start, tolerance=1e-3))
    assert found.value == pytest.approx(12, rel=1e-3)
    assert abs(torch.dot(found.vector, vectors[:, -1])) > 0.99
    again, fewer = end_of(largest_eigenvalue(lambda v: matrix @ v, vectors[:, -1] + 0.02 * start, tolerance=1e-3))
    assert again.value == pytest.approx(12, rel=1e-3)
    assert fewer < count
    _, count = end_of(largest_eigenvalue(lambda v: 3 * v, start))
    assert count == 1


def test_a_product_that_is_not_finite_ends_the_search():
    """The network has diverged; there is no eigenvalue."""
    found, count = end_of(largest_eigenvalue(lambda v: v * math.nan, torch.ones(3)))
    assert isinstance(found, Eigenvalue)
    assert math.isnan(found.value)
    assert count == 1


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_limit_of_stable_steps(momentum, nesterov):
    """On a quadratic, steps converge just below it and diverge just above it; Adam has no such limit."""
    settings = {"optimizer": "sgd", "lr": 1.0, "momentum": momentum, "nesterov": nesterov and momentum > 0}
    limit = stability_limit(TrainConfig.from_settings(settings))
    for factor, is_stable in ((0.97, True), (1.03, False)):
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=1.0, momentum=momentum, nesterov=settings["nesterov"])
        for _ in range(1000):
            optimizer.zero_grad()
            (0.5 * factor * limit * weight**2).sum().backward()
            optimizer.step()
        assert (weight.abs().item() < 1e-3) == is_stable
    assert stability_limit(TrainConfig(optimizer="adam")) is None


def test_every_epoch_of_a_run(tiny, trained):
    """Each has its own sharpness and loss, and 2/lr of its own lr."""
    config = TrainConfig(epochs=2, batch_size=13, lr=0.1, scheduler="step", step_size=1, gamma=0.5)
    folder = trained(config, tiny)[0]
    line = of_folder(folder)
    events = list(measure(Measured.of(line.run, read_snapshots(line, 40)), tiny.train))
    rows = [event for event in events if isinstance(event, SharpnessMeasured)]
    assert [row.epoch for row in rows] == [0, 1, 2]
    assert [row.limit for row in rows] == [None, pytest.approx(20), pytest.approx(40)]
    assert [row.fraction for row in rows] == pytest.approx([1 / 3, 2 / 3, 1])
    assert events[0] == ProductComputed(epoch=0, number=1, fraction=0.0)
    model = of_folder(folder).open(2).train()
    assert rows[2].loss == pytest.approx(training_loss(model, tiny.train))
    start = torch.randn(len(vector_of(model)), generator=torch.Generator().manual_seed(5))
    found, _ = end_of(largest_eigenvalue(hessian(model, tiny.train), start, tolerance=1e-4))
    assert rows[2].sharpness == pytest.approx(found.value, rel=0.02)


def test_the_command(image_folder, tmp_path, capsys):
    """A table, or strict JSON."""
    at = ["--data", str(image_folder), "--checkpoints", str(tmp_path), "--run", "run"]
    assert main(["train", "--epochs", "1", "--scheduler", "constant", "--batch-size", "20", *at]) == 0
    capsys.readouterr()
    command = ["sharpness", str(tmp_path / "run"), "--images", "8"]
    assert main([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert rows[1].keys() == {"event", "epoch", "sharpness", "limit", "loss", "fraction"}
    assert main(command) == 0
    assert "8 training pictures" in capsys.readouterr().out
    assert main([*command, "--images", "0"]) == 2
    assert "--images takes a number" in capsys.readouterr().err
