"""The loss landscape: known on a quadratic, exact at the epochs' own places, and cached until something changes."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import finish
from safetensors.torch import load_file, save_file
from torch import nn

from trainer.cli.main import main
from trainer.errors import UserError
from trainer.insight import contours, plane, timeline
from trainer.insight.landscape import (
    Grid,
    coarse_to_fine,
    empty_map,
    evaluate,
    grid_over,
    mean_loss,
    mean_losses,
    read_cache,
    sample,
    visit,
    write_cache,
)
from trainer.insight.plane import Plane, Stop, around, principal_directions, through_epochs
from trainer.learning import loop
from trainer.learning.learner import build_model
from trainer.networks.model import OptimizerLabModel
from trainer.settings.config import TrainConfig


@pytest.fixture(scope="module")
def trained_once(record_once) -> Path:
    """A run of two epochs, whose three networks define a plane; do not change it."""
    return record_once(TrainConfig(epochs=2, batch_size=13, optimizer="adam", lr=0.01, scheduler="constant"))


def loss_of(model, split):
    """Returns the loss of a network in evaluation mode, as the training loop measures it."""
    return finish(loop.evaluate(model, split)).loss


def test_the_landscape_of_a_quadratic():
    """Gradient descent within two eigenvectors stays there; the curvatures of its plane are their eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    values = torch.tensor([4.0, 1.0, 9.0, 16.0, 25.0, 36.0])
    matrix = vectors @ torch.diag(values) @ vectors.T
    points = [vectors[:, 0] * 2 + vectors[:, 1] * 3]
    for _ in range(7):
        points.append(points[-1] - 0.1 * matrix @ points[-1])
    directions, share = principal_directions(torch.stack(points))
    assert share == pytest.approx(1)
    config = {"class_names": ["a", "b"]}
    origin = points[-1]
    flat = Plane(config=config, origin=origin, directions=directions, paths=((Stop(epoch=0, x=0, y=0),),), share=share)
    ticks = (-2.0, -1.0, 0.0, 1.0, 2.0)
    grid = Grid(plane=flat, xs=ticks, ys=ticks)

    def losses_at(weights):
        assert len(weights) <= 4
        return [0.5 * (w @ matrix @ w).item() for w in weights]

    losses = {(e.row, e.column): e.loss for e in visit(grid, losses_at, at_once=4)}
    across = losses[2, 3] - 2 * losses[2, 2] + losses[2, 1]
    up = losses[3, 2] - 2 * losses[2, 2] + losses[1, 2]
    mixed = (losses[3, 3] - losses[3, 1] - losses[1, 3] + losses[1, 1]) / 4
    curvatures = torch.linalg.eigvalsh(torch.tensor([[across, mixed], [mixed, up]]))
    assert curvatures.tolist() == pytest.approx([1, 4], abs=1e-3)


def test_the_loss_at_an_epochs_own_place(trained_once, tiny):
    """It is that epoch's loss on the same pictures: three epochs lie in their plane exactly."""
    line = timeline.of_folder(trained_once)
    flat = through_epochs([line])
    assert flat.share == pytest.approx(1)
    split = sample(tiny.train, 20)
    assert len(split.labels) == 20
    for stop in flat.paths[0]:
        grid = Grid(plane=flat, xs=(stop.x,), ys=(stop.y,))
        (event,) = evaluate(grid, split)
        assert event.loss == pytest.approx(loss_of(line.open(stop.epoch), split), abs=1e-5)
        assert event.fraction == 1
    assert (flat.paths[0][-1].x, flat.paths[0][-1].y) == (0, 0)


def test_batch_normalisation_sees_the_pictures_at_each_point(tiny):
    """The loss is that of a network whose statistics were measured on the same pictures."""
    model = build_model(TrainConfig(model="fast"), tiny, tiny.train)
    model.network.linear.weight.data *= 20
    grid = Grid(plane=around(model, 0), xs=(0.0,), ys=(0.0,))
    (event,) = evaluate(grid, tiny.train)
    unmeasured = loss_of(model, tiny.train)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        model.train()(tiny.train.images)
    model.network.__class__ = nn.Sequential  # without the mirror image
    measured = loss_of(model, tiny.train)
    assert event.loss == pytest.approx(measured, rel=0.1)  # the variances of training are not unbiased
    assert abs(measured - unmeasured) > 0.2 * measured


@pytest.mark.parametrize("architecture", ["quick", "fast"])
def test_losses_at_several_points_at_once(architecture, tiny):
    """A GPU computes them; each is the loss at that point alone."""
    model = build_model(TrainConfig(model=architecture), tiny, tiny.train).train()
    random = around(model, 0)
    points = torch.stack([random.origin, *(random.origin + step * random.directions[0] for step in (-0.5, 0.7))])
    together = mean_losses(model, points, tiny.train)
    for point, loss in zip(points, together.tolist(), strict=True):
        plane.set_vector(model, point)
        assert loss == pytest.approx(mean_loss(model, tiny.train), abs=1e-5)
    assert len(set(together.tolist())) == 3


def test_random_directions_have_the_norms_of_the_filters(trained_once):
    """Of each filter; biases stay as they are. Another seed gives other directions."""
    model = OptimizerLabModel.from_pretrained(trained_once)
    random = around(model, 2)
    plane.set_vector(model, random.directions[1])
    of_direction = {name: weight.clone() for name, weight in model.named_parameters()}
    plane.set_vector(model, random.origin)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not of_direction[name].any()
        else:
            norms = [w.flatten(1).norm(dim=1) for w in (weight, of_direction[name])]
            assert torch.allclose(*norms, rtol=1e-4)
    assert torch.equal(random.origin, plane.vector_of(OptimizerLabModel.from_pretrained(trained_once)))
    assert not torch.equal(random.directions, around(model, 2, seed=1).directions)


@pytest.mark.parametrize("num_points", [3, 8, 25])
def test_all_points_are_visited_once(num_points):
    """The corners come first, then the middle."""
    places = list(coarse_to_fine(num_points))
    assert len(places) == num_points**2 == len(set(places))
    last = num_points - 1
    assert set(places[:4]) == {(0, 0), (0, last), (last, 0), (last, last)}
    assert len({row for row, _ in places[:9]}) == 3


def test_unfinished_landscapes_are_interpolated():
    """A plane is exact at every level."""
    losses = {}
    for place in coarse_to_fine(9):
        losses[place] = place[0] + 10.0 * place[1]
        if len(losses) >= 4:
            expected = torch.arange(9.0)[:, None] + 10 * torch.arange(9.0)
            assert contours.filled(losses, 9) == pytest.approx(expected.numpy())


def test_infinite_losses_are_cut_and_marked(trained_once, tiny):
    """Far away the network overflows; the chart has a mark there, and finite levels."""
    flat = around(OptimizerLabModel.from_pretrained(trained_once), 2)
    grid = grid_over(replace(flat, directions=flat.directions * 1e15), 5)
    found = empty_map(grid, ["run"], 26)
    for event in evaluate(grid, tiny.train):
        found.losses[event.row, event.column] = event.loss
    infinite = [place for place, loss in found.losses.items() if not math.isfinite(loss)]
    assert 0 < len(infinite) < 25
    rows = contours.rows(found)
    assert len(rows["infinite"]) == found.num_infinite == len(infinite)
    assert all(map(math.isfinite, rows["grid"][0]["values"]))
    assert json.dumps([contours.spec(found), rows], allow_nan=False)
    path = found.paths[0]
    svg = contours.draw(replace(found, names=("one", "another"), paths=(path, path)))
    assert all(f">{text}<" in svg for text in ("one", "another", "network"))
    csv = contours.to_csv(found).splitlines()
    assert len(csv) == 1 + 25 + 1
    assert sum(line.endswith(",inf") for line in csv) == len(infinite)


def test_a_landscape_is_cached_until_something_changes(folder, tiny):
    """Other weights, other pictures and a damaged file are not taken for it."""

    def grid():
        return grid_over(through_epochs([timeline.of_folder(folder)]), 3)

    losses = {(e.row, e.column): e.loss for e in evaluate(grid(), tiny.train)} | {(0, 1): math.inf}
    assert read_cache(folder, grid(), tiny.train) is None
    write_cache(folder, grid(), tiny.train, losses)
    assert read_cache(folder, grid(), tiny.train) == losses
    assert read_cache(folder, grid(), tiny.test) is None
    weights = load_file(folder / "epochs" / "epoch-0000.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, folder / "epochs" / "epoch-0000.safetensors")
    assert read_cache(folder, grid(), tiny.train) is None
    cache = folder / "insight" / "landscape-epochs.json"
    for damage in ('{"key": 1}', "[" * 10**5, cache.read_text()[:-20], "{}"):
        cache.write_text(damage)
        assert read_cache(folder, grid(), tiny.train) is None


def test_runs_that_do_not_fit_are_refused(trained_once, tiny, trained):
    """One epoch makes a line; a network of another kind has other weights. Each is one sentence."""
    short, _ = trained(TrainConfig(epochs=1, batch_size=13, scheduler="constant"), tiny)
    lines = [timeline.of_folder(folder) for folder in (short, trained_once)]
    with pytest.raises(UserError, match=r"three different epochs.*random directions"):
        through_epochs(lines[:1])
    assert len(through_epochs(lines).paths) == 2
    shutil.rmtree(short / "epochs")
    with pytest.raises(UserError, match="no saved epochs"):
        timeline.of_folder(short)
    other, _ = trained(
        TrainConfig(epochs=1, activation="none", batch_size=13, scheduler="constant"),
        tiny,
        folder=short.parent / "other",
    )
    with pytest.raises(UserError, match="different networks"):
        through_epochs([lines[1], timeline.of_folder(other)])
    for number in (2, 102):
        with pytest.raises(UserError, match="from 3 to 101"):
            grid_over(around(OptimizerLabModel.from_pretrained(trained_once), 2), number)


def test_epochs_that_cannot_be_used_are_left_out(trained, tiny):
    """Damaged ones, and those of a diverged run whose weights are not finite; the others still make a plane."""
    config = TrainConfig(epochs=4, batch_size=13, optimizer="adam", lr=0.01, scheduler="constant")
    folder, _ = trained(config, tiny)
    (folder / "epochs" / "epoch-0002.safetensors").write_bytes(b"damaged")
    line = timeline.of_folder(folder)

    def open_epoch(epoch):
        model = line.open(epoch)
        if epoch == 3:
            next(model.parameters()).data.fill_(math.nan)
        return model

    flat = through_epochs([replace(line, open=open_epoch)])
    assert flat.num_missing == 2
    assert [stop.epoch for stop in flat.paths[0]] == [0, 1, 4]
    for path in (folder / "epochs").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        through_epochs([line])


def test_the_command(image_folder, tmp_path, capsys):
    """It draws the chart, prints strict JSON, and the second time takes the losses from the run's folder."""
    at = ["--data", str(image_folder), "--checkpoints", str(tmp_path), "--run", "run"]
    assert main(["train", "--epochs", "2", "--scheduler", "constant", "--batch-size", "20", *at]) == 0
    folder, chart = str(tmp_path / "run"), tmp_path / "chart.svg"
    capsys.readouterr()
    command = ["landscape", folder, "--grid", "3", "--images", "10"]
    assert main([*command, "--output", str(chart)]) == 0
    assert "A slice" in capsys.readouterr().out
    svg = chart.read_text(encoding="utf-8")
    assert all(text in svg for text in ("<svg", "start", "end", "slice", "2018"))
    before = (tmp_path / "run" / "insight" / "landscape-epochs.json").stat().st_mtime_ns
    assert main([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["event"] for row in rows] == ["point"] * 9 + ["landscape"]
    assert [stop["epoch"] for stop in rows[-1]["paths"][0]["epochs"]] == [0, 1, 2]
    assert rows[-2]["fraction"] == 1
    assert rows[-1]["share"] == pytest.approx(1)
    assert (tmp_path / "run" / "insight" / "landscape-epochs.json").stat().st_mtime_ns == before
    assert main([*command, "--random"]) == 0
    for wrong, reason in (
        (["--data", "synthetic"], "other pictures"),
        (["--grid", "x"], "--grid takes a number"),
        (["--output", "a.png"], r".svg file"),
        ([folder, "--random"], "--random takes one run"),
    ):
        assert main(["landscape", folder, *wrong]) == 2
        assert reason in capsys.readouterr().err
