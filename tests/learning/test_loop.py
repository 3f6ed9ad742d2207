"""train() and evaluate(): what they compute, which events they yield and when, and what they do not change."""

import math
import time
from dataclasses import replace

import pytest
import torch
from cases import finish, first_is_quick
from image_sets import draw_arrows
from torch import nn

from trainer.errors import UserError
from trainer.images.image_data import Split, from_pictures, load_images, subset
from trainer.images.readers import Pictures
from trainer.learning.learner import build_model
from trainer.learning.loop import SECONDS_BETWEEN_YIELDS, evaluate, train
from trainer.learning.schedulers import preview
from trainer.learning.training_set import holdout_split, training_split
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import CheckpointReady, EpochEnded, EvaluationLogged, Finished, LayersMeasured, StepLogged
from trainer.settings.config import MODELS, TrainConfig
from trainer.settings.lessons import LESSONS, zero_grad_lab
from trainer.settings.optimizers import OPTIMIZERS

PLAIN = {"scheduler": "constant", "batch_size": 64, "shuffle": False, "flip": False, "shift": 0, "normalize": False}
LAYERS = ("conv1", "conv2", "conv3", "linear1", "linear2")
TUTORIAL = {**PLAIN, "activation": "none", "drop_last": True, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.01}


def losses(events):
    return [event.loss for event in events if isinstance(event, StepLogged)]


def epochs(events):
    return [event for event in events if isinstance(event, EpochEnded)]


def weights(events):
    """Returns the weights of each checkpoint."""
    from safetensors.torch import load

    return [load(event.model) for event in events if isinstance(event, CheckpointReady)]


def untimed(events):
    """Returns the events without their times."""
    clock = {"seconds": 0.0, "images_per_second": 0.0, "epoch_seconds": 0.0}
    return [replace(event, **{name: 0.0 for name in clock if hasattr(event, name)}) for event in events]


def distance(one, other):
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_a_batch_of_all_pictures(tiny):
    """A batch_size of 0 trains exactly as that of the number of images: one step an epoch."""
    config = TrainConfig(batch_size=26, epochs=2, scheduler="constant")
    of_all, of_26 = (list(train(config.changed({"batch_size": size}), tiny)) for size in (0, 26))
    assert len(losses(of_all)) == 2
    assert losses(of_all) == losses(of_26)
    assert untimed(epochs(of_all)) == untimed(epochs(of_26))


@pytest.mark.parametrize(
    ("settings", "optimizer"),
    first_is_quick(
        [
            ({}, lambda parameters: torch.optim.SGD(parameters, lr=0.01)),
            ({"softmax": True}, lambda parameters: torch.optim.SGD(parameters, lr=0.01)),
            ({"optimizer": "adam", "lr": 0.001}, lambda parameters: torch.optim.Adam(parameters, lr=0.001)),
        ]
    ),
    ids=["sgd", "softmax", "adam"],
)
def test_an_epoch_is_the_tutorials(settings, optimizer, images):
    """Each step has the loss of the tutorial's own loop, written with torch, from the same initial weights."""
    without = {"momentum", "weight_decay"} if "optimizer" in settings else set()
    given = {**{name: value for name, value in TUTORIAL.items() if name not in without}, **settings}
    config = TrainConfig(epochs=1, **given)
    events = list(train(config, images))
    first = weights(events)[0]

    network = nn.Sequential(
        nn.Conv2d(3, 32, 5, 1, 2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 5, 1, 2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, 1, 2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.Linear(64, 10),
        *([nn.Softmax(dim=1)] if config.softmax else []),
    )
    with torch.no_grad():
        names = [f"network.{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]
        for parameter, name in zip(network.parameters(), names, strict=True):
            parameter.copy_(first[name])
    loss_function, optim = nn.CrossEntropyLoss(), optimizer(network.parameters())
    expected = []
    for start in range(0, 512, 64):
        pictures = images.train.images[start : start + 64].float() / 255
        loss = loss_function(network(pictures), images.train.labels[start : start + 64])
        optim.zero_grad()
        loss.backward()
        optim.step()
        expected.append(loss.item())
    assert losses(events) == pytest.approx(expected, abs=1e-5)
    assert len(expected) == 8


def test_epoch_0_is_the_untrained_network(images):
    """It is evaluated near guessing and saved before the first step, without training figures."""
    config = TrainConfig(epochs=1, seed=5, **PLAIN)
    events = list(train(config, images))
    row = epochs(events)[0]
    assert row.epoch == 0
    assert row.test_loss == pytest.approx(math.log(10), abs=0.05)
    assert row.test_accuracy < 0.25
    blank = (row.train_loss, row.train_loss_sum, row.lr, row.grad_norm, row.images_per_second, row.continued_with)
    assert blank == (None,) * 6
    assert row.seconds > 0
    model = build_model(config, images, images.train)
    assert distance(weights(events)[0], model.state_dict()) == 0
    assert distance(weights(events)[1], model.state_dict()) > 0


def test_the_order_of_events(tiny):
    """Each epoch yields its steps, what some measured, its row and its checkpoint; Finished comes once, at the end."""
    events = list(train(TrainConfig(epochs=2, batch_size=8, scheduler="constant"), tiny))
    kinds = [(type(event).__name__, getattr(event, "epoch", None)) for event in events]
    ends = [[("EpochEnded", epoch), ("CheckpointReady", epoch)] for epoch in range(3)]
    assert kinds == [
        *ends[0],
        *[("StepLogged", 1), ("LayersMeasured", 1)] * 2,
        *[("StepLogged", 1)] * 2,
        ("LayersMeasured", 1),
        *ends[1],
        *[("StepLogged", 2)] * 4,
        ("LayersMeasured", 2),
        *ends[2],
        ("Finished", None),
    ]
    assert [event.step for event in events if isinstance(event, StepLogged)] == list(range(1, 9))
    assert {event.num_steps for event in events if isinstance(event, StepLogged)} == {8}
    assert events[-1] == Finished(reason="completed")


def test_sums_and_means(tiny):
    """An epoch's row has the sum and mean of its steps' losses, their mean gradient norm and the last lr."""
    config = TrainConfig(epochs=3, batch_size=8, scheduler="exponential", scheduler_unit="batch")
    events = list(train(config, tiny))
    for row in epochs(events)[1:]:
        steps = [event for event in events if isinstance(event, StepLogged) and event.epoch == row.epoch]
        assert len(steps) == 4
        assert row.train_loss_sum == pytest.approx(sum(step.loss for step in steps))
        assert row.train_loss == pytest.approx(row.train_loss_sum / 4)
        assert row.grad_norm == pytest.approx(sum(step.grad_norm for step in steps) / 4)
        assert row.lr == steps[-1].lr
        assert row.images_per_second * row.seconds >= 26 * 0.999  # the training alone is shorter than the epoch


def test_infinite_norms_are_left_out_of_the_mean(tiny, monkeypatch):
    """As when float16's gradients overflow: the mean is that of the other batches."""
    norms = iter([1.0, math.inf, 3.0, 2.0])
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda gradients: torch.tensor(next(norms)))
    events = list(train(TrainConfig(epochs=1, batch_size=8, scheduler="constant"), tiny))
    assert [event.grad_norm for event in events if isinstance(event, StepLogged)] == [1.0, math.inf, 3.0, 2.0]
    assert epochs(events)[1].grad_norm == 2.0


def test_grad_norm_covers_all_gradients(tiny):
    """The first step's norm equals one computed by hand."""
    config = TrainConfig(epochs=1, scheduler="constant", batch_size=8, shuffle=False, flip=False, shift=0)
    step = next(event for event in train(config, tiny) if isinstance(event, StepLogged))
    model = build_model(config, tiny, tiny.train)
    nn.functional.cross_entropy(model(tiny.train.images[:8]), tiny.train.labels[:8]).backward()
    norm = sum(parameter.grad.square().sum() for parameter in model.parameters()).sqrt().item()
    assert step.grad_norm == pytest.approx(norm, rel=1e-5)


def test_evaluate(images):
    """Loss and accuracy equal those computed over all pictures at once; the last part of a split may be short."""
    model = build_model(TrainConfig(), images, images.train)
    split = subset(images.train, 507)
    with torch.no_grad():
        outputs = model(split.images)
        expected = nn.functional.cross_entropy(outputs, split.labels).item()
        accuracy = (outputs.argmax(1) == split.labels).float().mean().item()
    results = finish(evaluate(model, split))
    assert (results.loss, results.accuracy) == pytest.approx((expected, accuracy), rel=1e-5)


@pytest.mark.slow
def test_evaluation_does_not_change_fast(images):
    """Batch normalisation learns nothing from test pictures, and the size of a part makes no difference."""
    config = TrainConfig(model="fast")
    model = build_model(config, images, images.train)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    results = finish(evaluate(model, images.test))
    assert distance(before, model.state_dict()) == 0
    outputs = torch.cat([model(images.test.images[place : place + 1]) for place in range(20)])
    assert finish(evaluate(model, subset(images.test, 20))).loss == pytest.approx(
        nn.functional.cross_entropy(outputs, images.test.labels[:20]).item(), rel=1e-4
    )
    assert 0 <= results.accuracy <= 1
    assert math.isfinite(results.loss)


@pytest.fixture
def few():
    """64 training pictures and 2,000 test pictures."""
    data = load_images("synthetic")
    return replace(data, train=subset(data.train, 64))


@pytest.mark.slow
def test_a_part_of_the_test_images_is_enough_while_training(few):
    """If all would take most of the time, they are evaluated after the last epoch only; each row says how many."""
    config = TrainConfig(epochs=2, batch_size=32, scheduler="constant")
    events = list(train(config, few))
    assert [row.test_share for row in epochs(events)] == [0.5, 0.5, 1.0]
    network = OptimizerLabModel(**next(event.model_config for event in events if isinstance(event, CheckpointReady)))
    chosen = torch.arange(1000) * 2 + 1
    for row, saved, split in zip(
        epochs(events)[1:],
        weights(events)[1:],
        [Split(images=few.test.images[chosen], labels=few.test.labels[chosen]), few.test],
        strict=True,
    ):
        network.load_state_dict(saved)
        results = finish(evaluate(network, split))
        assert row.test_loss == pytest.approx(results.loss, rel=1e-6)
        assert row.test_accuracy == pytest.approx(results.accuracy)
    predicted = network.eval()(few.test.images).argmax(1)  # the last epoch's
    assert [row.class_accuracy for row in epochs(events)[:2]] == [None, None]
    assert epochs(events)[2].class_accuracy == {
        name: (predicted == few.test.labels)[few.test.labels == label].double().mean().item()
        for label, name in enumerate(few.class_names)
    }


def test_the_accuracy_of_unequal_classes():
    """A class without test pictures has none; the mean over the pictures says little about a class that has few."""
    (images, _), (tests, _) = (draw_arrows(num, seed=num) for num in (20, 11))
    labels, tested = torch.tensor([0] * 18 + [1, 2]), torch.tensor([0] * 10 + [1])
    pictures = Pictures("unequal", ("often", "rarely", "never tested"), (images, labels), (tests, tested))
    data = from_pictures(pictures, source="unequal", revision=None)
    *_, last = epochs(train(TrainConfig(epochs=1, batch_size=10, lr=1e-9, scheduler="constant"), data))
    (often, rarely, never) = last.class_accuracy.values()
    assert last.test_accuracy == pytest.approx((10 * often + rarely) / 11)
    assert never is None


@pytest.mark.slow
def test_the_untrained_network_is_evaluated_on_a_thousand_images():
    """It guesses: a thousand images show that as well as ten thousand, and the curve begins sooner."""
    data = load_images("synthetic")
    assert len(data.test.labels) == 2000
    config = TrainConfig(epochs=1, num_images=1000, scheduler="constant")
    untrained, trained = epochs(train(config, data))
    assert (untrained.test_share, trained.test_share) == (0.5, 1.0)
    assert untrained.test_loss == pytest.approx(math.log(10), abs=0.05)


@pytest.mark.slow
def test_plateau_follows_the_same_images_in_every_epoch(few):
    """So that a longer run is the continuation of a shorter one."""
    config = TrainConfig(epochs=2, batch_size=32, scheduler="plateau", patience=0, threshold=10.0)
    short, long = (list(train(config.changed({"epochs": number}), few)) for number in (2, 3))
    states = [
        [event.state["scheduler"] for event in events if isinstance(event, CheckpointReady)][2]
        for events in (short, long)
    ]
    assert states[0] == states[1]


EVERY = [(optimizer, model) for model in MODELS for optimizer in OPTIMIZERS]


@pytest.mark.parametrize(("optimizer", "model"), first_is_quick(EVERY))
def test_a_checkpoint_holds_the_weights_that_were_evaluated(optimizer, model, tiny):
    """Whoever loads it gets the test loss of the epoch's row, whatever weights the optimizer trains."""
    events = list(train(TrainConfig(optimizer=optimizer, model=model, epochs=1, batch_size=4), tiny))
    network = OptimizerLabModel(**next(event.model_config for event in events if isinstance(event, CheckpointReady)))
    network.load_state_dict(weights(events)[-1])
    results, last = finish(evaluate(network, tiny.test)), epochs(events)[-1]
    assert (results.loss, results.accuracy) == (last.test_loss, last.test_accuracy)


@pytest.mark.parametrize(("optimizer", "model"), first_is_quick(EVERY))
def test_bfloat16_is_float32_but_for_rounding(optimizer, model, tiny):
    """The first batch's loss differs by rounding only, and the training ends with numbers."""
    config = TrainConfig(optimizer=optimizer, model=model, epochs=1, batch_size=4)
    exact, rounded = (list(train(replace(config, precision=name), tiny)) for name in ("float32", "bfloat16"))
    assert losses(rounded)[0] == pytest.approx(losses(exact)[0], abs=0.05)
    assert losses(rounded) != losses(exact)
    assert math.isfinite(epochs(rounded)[-1].test_loss)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_preview_is_the_lr_that_trains(optimizer, tiny):
    """Of Muon it is the lr of the hidden layers."""
    config = TrainConfig(optimizer=optimizer, epochs=3, batch_size=13, pct_start=None)
    if config.scheduler == "onecycle":
        config = config.changed({"pct_start": 0.4})
    trained = [event.lr for event in train(config, tiny) if isinstance(event, StepLogged)]
    assert trained == [lr for _, lr in preview(config, batches_per_epoch=2)]


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if not name.startswith("sam")])
def test_every_optimizer_accumulates_gradients(optimizer, tiny):
    """Two batches whose gradients add up give the step of one twice as large: the zero_grad lab."""
    scheduler = {"scheduler": "constant", "epochs": 2, "flip": False, "shift": 0, "shuffle": False}
    config = TrainConfig.from_settings({"optimizer": optimizer, "batch_size": 13, **scheduler})
    cleared, accumulated, never, large = zero_grad_lab(config, 2)
    rows = [epochs(train(each, tiny))[-1].test_loss for each in (accumulated, large)]
    assert rows[0] == pytest.approx(rows[1], abs=2e-3)
    assert isinstance(list(train(never, tiny))[-1], Finished)
    assert epochs(train(cleared, tiny))[-1].test_loss != pytest.approx(rows[1], abs=1e-6)


@pytest.mark.slow
def test_fast_tells_left_from_right_without_flip():
    """Arrows that point left or right: averaging over mirror images would confuse them."""
    splits = (draw_arrows(num, seed=num) for num in (240, 160))
    small = ((images[:, ::2, ::2].contiguous(), labels) for images, labels in splits)
    data = from_pictures(Pictures("arrows", ("left", "right"), *small), source="arrows", revision=None)
    config = TrainConfig(model="fast", flip=False, epochs=4, batch_size=20, lr=0.05)
    assert epochs(train(config, data))[-1].test_accuracy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fast_learns_with_every_optimizer(optimizer, tiny):
    """With the optimizer's defaults its statistics are updated, and the loss of its pictures falls."""
    plain = {"flip": False, "shift": 0, "train_split": "test"}
    config = TrainConfig(model="fast", optimizer=optimizer, epochs=8, batch_size=8, **plain)
    events = list(train(config, tiny))
    assert events[-1].reason == "completed"
    assert min(row.train_loss for row in epochs(events)[2:]) < epochs(events)[1].train_loss
    # Those of averaged weights are measured anew, in one batch.
    batches = 1 if "schedulefree" in optimizer else 24
    assert weights(events)[-1]["network.norm1.num_batches_tracked"] == batches
    assert (weights(events)[-1]["network.norm1.running_mean"] != 0).all()


@pytest.mark.parametrize("lesson", first_is_quick(LESSONS.values()), ids=LESSONS)
def test_fast_takes_every_lesson(lesson, tiny):
    """Each mistake and its fixed version can be trained; they complete or diverge."""
    for config in [lesson.config, *lesson.compared][:2]:
        events = list(train(config.changed({"model": "fast", "batch_size": 4, "epochs": 1, "num_images": 0}), tiny))
        assert isinstance(events[-1], Finished)
        assert len(losses(events)) > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon", "sam"])
def test_a_step_beyond_float32(optimizer, tiny):
    """Adam divides lr by a small number. A sentence ends the run, or it diverges; torch's own error is neither."""
    config = TrainConfig(epochs=1, batch_size=8, scheduler="constant", optimizer=optimizer, lr=3e38)
    try:
        end = list(train(config, tiny))[-1]
    except UserError as error:
        end = str(error)
    refusal = "The weights cannot hold a step with an lr of 3e+38: choose a smaller lr."
    assert end == refusal or end.reason == "diverged"


def test_it_learns(images):
    """The loss falls in two epochs of 512 synthetic pictures."""
    rows = epochs(train(TrainConfig(epochs=2, batch_size=32, optimizer="adam", scheduler="constant"), images))
    assert rows[2].train_loss < rows[1].train_loss < math.log(10) + 0.1
    assert rows[2].test_loss < rows[0].test_loss


def test_global_randomness_is_not_used(tiny):
    """A run does not use torch's global generator, and another state of it gives the same run."""
    config = TrainConfig(epochs=2, batch_size=8, scheduler="constant")
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        runs.append(untimed(train(config, tiny)))
        assert torch.equal(torch.get_rng_state(), before)
    assert runs[0] == runs[1]


def test_the_seed_chooses_the_run(tiny):
    """Another seed gives other initial weights and another order of the same pictures."""
    one, other = (
        list(train(TrainConfig(epochs=1, batch_size=8, scheduler="constant", seed=seed), tiny)) for seed in (0, 1)
    )
    assert distance(weights(one)[0], weights(other)[0]) > 0.01
    assert losses(one) != losses(other)


def test_interleaved_runs_are_independent(tiny):
    """A race interleaves generators: each yields what it would yield alone."""
    configs = [TrainConfig(epochs=1, batch_size=8, scheduler="constant", optimizer=name) for name in ("sgd", "adam")]
    alone = [untimed(train(config, tiny)) for config in configs]
    together = [[], []]
    runs = [train(config, tiny) for config in configs]
    for events in zip(*runs, strict=True):
        for seen, event in zip(together, events, strict=True):
            seen.extend(untimed([event]))
    assert together == alone


@pytest.mark.slow
def test_it_yields_at_least_once_a_second(images):
    """Also within a long epoch and a long evaluation, because a Stop takes effect only at a yield."""
    many = Split(images=images.train.images.repeat(8, 1, 1, 1), labels=images.train.labels.repeat(8))
    data = replace(images, train=subset(many, 1024), test=subset(many, 2500))
    gaps, last = [], time.perf_counter()
    for _ in train(TrainConfig(epochs=1, batch_size=32, scheduler="constant"), data):
        gaps.append(time.perf_counter() - last)
        last = time.perf_counter()
    assert SECONDS_BETWEEN_YIELDS <= 0.5
    # A busy machine may delay one yield, but not all.
    assert sorted(gaps)[-2] < 1.0


def test_long_parts_are_divided(images, monkeypatch):
    """With an interval below 0, every batch and every part of an evaluation yields an event at once."""
    monkeypatch.setattr("trainer.learning.loop.SECONDS_BETWEEN_YIELDS", -1.0)
    monkeypatch.setattr("trainer.learning.loop._EVALUATION_BATCH", 64)
    events = train(TrainConfig(epochs=1, **PLAIN), images)
    seen = [type(event).__name__ for event in events if not isinstance(event, LayersMeasured)]
    assert seen == [
        *["EvaluationLogged"] * 4,
        *["EpochEnded", "CheckpointReady"],
        *["StepLogged"] * 8,
        *["EvaluationLogged"] * 4,
        *["EpochEnded", "CheckpointReady", "Finished"],
    ]


@pytest.mark.slow
def test_the_progress_of_an_evaluation_never_goes_back(few, monkeypatch):
    """It is that of everything that is evaluated after the epoch: 1,000 or 2,000 test images, and 6 kept aside."""
    monkeypatch.setattr("trainer.learning.loop.SECONDS_BETWEEN_YIELDS", -1.0)
    config = TrainConfig(epochs=2, batch_size=32, holdout=0.1, scheduler="constant")
    seen = {epoch: [] for epoch in range(3)}
    for event in train(config, few):
        if isinstance(event, EvaluationLogged):
            seen[event.epoch].append(event.fraction)
    kept_aside = len(holdout_split(config, few).labels)
    half = [500 / (1000 + kept_aside), 1000 / (1000 + kept_aside), 1.0]
    assert seen[0] in (half, [1.0]), "the evaluation of an untrained network may be remembered"
    assert seen[1] == pytest.approx(half)
    assert seen[2] == pytest.approx([*(count / (2000 + kept_aside) for count in (500, 1000, 1500, 2000)), 1.0])


def test_the_interval_does_not_change_the_losses(images, monkeypatch):
    """Losses are the same however often the host reads them."""
    config = TrainConfig(epochs=1, num_images=128, batch_size=32, scheduler="onecycle", pct_start=0.5)
    seldom = losses(train(config, images))
    monkeypatch.setattr("trainer.learning.loop.SECONDS_BETWEEN_YIELDS", -1.0)
    assert losses(train(config, images)) == seldom


def test_divergence_keeps_the_last_good_epoch(tiny):
    """A huge lr ends the run as `diverged`, with advice, and with no checkpoint after the last finite epoch."""
    config = TrainConfig(epochs=5, batch_size=8, scheduler="constant", lr=1e4)
    events = list(train(config, tiny))
    assert events[-1].reason == "diverged"
    assert "an lr of 0.02" in events[-1].advice
    assert not math.isfinite(losses(events)[-1])
    assert all(math.isfinite(loss) for loss in losses(events)[:-1])
    saved = weights(events)
    assert [row.epoch for row in epochs(events)] == list(range(len(saved)))
    assert all(tensor.isfinite().all() for tensor in saved[-1].values())


def test_divergence_at_the_last_step_of_an_epoch(tiny):
    """The step that breaks the network has a finite loss: only the evaluation detects it, and no epoch is saved."""
    config = TrainConfig(epochs=3, batch_size=26, scheduler="constant", lr=1e30)
    events = list(train(config, tiny))
    assert [math.isfinite(loss) for loss in losses(events)] == [True]
    assert [row.epoch for row in epochs(events)] == [0]
    assert events[-1].reason == "diverged"


def test_divergence_without_zero_grad_has_other_advice(tiny):
    """If gradients are never cleared, a smaller lr is not the cure."""
    config = TrainConfig(epochs=5, batch_size=8, scheduler="constant", lr=1e4, zero_grad_every=0)
    finished = list(train(config, tiny))[-1]
    assert finished.reason == "diverged"
    assert "zero_grad_every to 1" in finished.advice


@pytest.mark.parametrize("every", first_is_quick([2, 4]))
def test_zero_grad_every_k_is_a_batch_k_times_as_large(every, images):
    """k batches of n and one of k × n give the same weights with an optimizer without state."""
    same = {**PLAIN, "epochs": 2, "num_images": 128, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.05}
    small = train(TrainConfig(**{**same, "batch_size": 64 // every}, zero_grad_every=every), images)
    large = train(TrainConfig(**{**same, "batch_size": 64}), images)
    for one, other in zip(weights(small), weights(large), strict=True):
        assert distance(one, other) < 1e-6


def test_zero_grad_every_0_never_clears(images):
    """Each step uses the sum of all gradients so far, as computed by hand for the second step."""
    config = TrainConfig(
        **{**PLAIN, "epochs": 1, "num_images": 64, "batch_size": 32, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.05},
        zero_grad_every=0,
    )
    trained = weights(train(config, images))[-1]
    model = build_model(config, images, subset(images.train, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for start in (0, 32):
        part = slice(start, start + 32)
        nn.functional.cross_entropy(model(images.train.images[part]), images.train.labels[part]).backward()
        optimizer.step()
    assert distance(trained, model.state_dict()) < 1e-6
    cleared = weights(train(replace(config, zero_grad_every=1), images))[-1]
    assert distance(trained, cleared) > 1e-4


def test_the_last_batch_counts_as_one(tiny):
    """With 26 pictures in batches of 8, the mean over batches weighs the last two pictures like eight; drop_last leaves
    them out."""
    whole = list(train(TrainConfig(**{**PLAIN, "epochs": 1, "batch_size": 8}), tiny))
    dropped = list(train(TrainConfig(**{**PLAIN, "epochs": 1, "batch_size": 8}, drop_last=True), tiny))
    assert losses(dropped) == losses(whole)[:3]
    assert len(losses(whole)) == 4


def test_label_smoothing(tiny):
    """The first training loss is torch's smoothed loss; the evaluation is not smoothed."""
    config = TrainConfig(
        epochs=1, scheduler="constant", batch_size=26, shuffle=False, flip=False, shift=0, label_smoothing=0.3
    )
    events = list(train(config, tiny))
    model = build_model(config, tiny, tiny.train)
    with torch.no_grad():
        outputs = model(tiny.train.images)
        expected = nn.functional.cross_entropy(outputs, tiny.train.labels, label_smoothing=0.3).item()
        untouched = nn.functional.cross_entropy(model(tiny.test.images), tiny.test.labels).item()
    assert losses(events)[0] == pytest.approx(expected, abs=1e-5)
    assert epochs(events)[0].test_loss == pytest.approx(untouched, abs=1e-5)


def test_bfloat16_runs_on_a_cpu(tiny):
    """The losses are nearly those of float32, and the weights stay float32."""
    config = TrainConfig(epochs=2, batch_size=8, scheduler="constant", lr=0.01)
    exact, rough = (list(train(replace(config, precision=name), tiny)) for name in ("float32", "bfloat16"))
    assert losses(rough) == pytest.approx(losses(exact), rel=0.05)
    assert losses(rough) != losses(exact)
    assert {tensor.dtype for tensor in weights(rough)[-1].values()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"precision": "float16"}, "float16 needs a CUDA GPU"),
        ({"batch_size": 27}, "batch_size must not be above the 26 pictures"),
        ({"num_images": 27, "batch_size": 8}, "num_images must not be above the 26 pictures"),
        ({"num_images": 4, "batch_size": 8}, "batch_size must not be above the 4 pictures"),
        ({"batch_size": 21, "train_split": "test"}, "batch_size must not be above the 20 pictures"),
        ({"batch_size": 26, "scheduler": "onecycle", "epochs": 1}, "onecycle cannot rise and fall"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_at_once(settings, sentence, tiny):
    """On the call, before the first event."""
    with pytest.raises(ValueError, match=sentence):
        train(TrainConfig(**{"batch_size": 8, **settings}), tiny)


def test_the_split_to_train_on(tiny):
    """It can be the test split, as in the tutorial, and can be limited to the first pictures."""
    split = training_split(TrainConfig(train_split="test", num_images=12, batch_size=4), tiny)
    assert torch.equal(split.images, tiny.test.images[:12])
    assert torch.equal(split.labels, tiny.test.labels[:12])


@pytest.mark.slow
def test_the_softmax_mistake_barely_learns(images):
    """Lesson 2 on a small scale: with a second softmax the loss hardly moves, and without it falls."""
    falls = {}
    for softmax in (True, False):
        config = TrainConfig(**{**PLAIN, "epochs": 3, "batch_size": 32, "num_images": 256, "lr": 0.05}, softmax=softmax)
        rows = epochs(train(config, images))
        falls[softmax] = rows[1].train_loss - rows[3].train_loss
    assert 0 <= abs(falls[True]) < 0.01 < falls[False]


def test_no_event_holds_a_tensor(tiny):
    """Losses are plain numbers, so that no graph stays in memory as in the tutorial."""
    for event in train(TrainConfig(epochs=1, batch_size=8, scheduler="constant"), tiny):
        for name in getattr(event, "__dataclass_fields__", {}):
            assert not isinstance(getattr(event, name), torch.Tensor)


def test_closing_ends_the_run(tiny):
    """A Stop closes the generator at any event."""
    events = train(TrainConfig(epochs=2, batch_size=8, scheduler="constant"), tiny)
    while not isinstance(next(events), StepLogged):
        pass
    events.close()
    assert list(events) == []


def test_it_learns_real_pictures(real_images):
    """The loss falls in one epoch of `quick` on the first 2,000 pictures of CIFAR-10."""
    data = replace(real_images, test=subset(real_images.test, 1000))
    config = TrainConfig(epochs=1, num_images=2000, optimizer="adam", scheduler="constant", lr=0.002)
    events = list(train(config, data))
    seen = losses(events)
    assert sum(seen[-8:]) / 8 < sum(seen[:4]) / 4 - 0.2
    before, after = epochs(events)
    assert after.test_loss < before.test_loss - 0.15
    assert after.test_accuracy > 0.2
