"""The lessons: experiments as settings, with what to look for in them. Standard library only.

The first ones are those of the tutorial, a beginner's notebook on optimizers. It ran all experiments on CIFAR-10's test
split, without shuffling, normalisation or activation functions. The others compare optimizers of today.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from trainer.errors import UserError
from trainer.settings.config import TrainConfig

NUM_BATCHES = 156  # in an epoch of the notebook: 10,000 test pictures in full batches of 64

_TUTORIAL = {
    "activation": "none",
    "normalize": False,
    "shuffle": False,
    "drop_last": True,
    "flip": False,
    "shift": 0,
    "train_split": "test",
    "batch_size": 64,
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "scheduler": "constant",
    "epochs": 20,
}
# Long enough for a difference to show, and short enough to wait for.
_TODAY = {
    "optimizer": "adamw",
    "lr": 0.003,
    "scheduler": "cosine",
    "scheduler_unit": "batch",
    "flip": False,
    "shift": 0,
    "num_images": 5000,
    "epochs": 3,
}
_STEP_PER_BATCH = {"scheduler": "step", "step_size": 5, "gamma": 0.1, "scheduler_unit": "batch"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """One experiment: its settings, what its comparison runs change, and what to look for in it.

    A lesson that is a sweep has `vary` instead of comparison runs.
    """

    name: str
    title: str
    settings: Mapping[str, Any]  # those that differ from `base`
    comparisons: tuple[Mapping[str, Any], ...] = ()  # what each comparison run changes; that of a mistake is its fix
    vary: tuple[str, ...] = ()  # the axes of a sweep, as `python -m trainer sweep --vary` takes them
    before: str  # what to look for
    after: str  # what happened, and why
    base: Mapping[str, Any] = field(default_factory=lambda: _TUTORIAL)
    is_mistake: bool = False
    printed: tuple[float, ...] = ()  # the figures that the notebook printed
    printed_unit: str = "epoch"  # "epoch": each is the sum of an epoch's batch losses; "batch": the loss of a batch
    printed_at: tuple[int, ...] = ()  # the epoch or batch of each figure, counted from 1

    @property
    def config(self) -> TrainConfig:
        """The experiment's settings."""
        return TrainConfig.from_settings(self.base).changed(self.settings)

    @property
    def compared(self) -> list[TrainConfig]:
        """The settings of the comparison runs. The seed is the same, and so are the initial weights."""
        return [self.config.changed(changes) for changes in self.comparisons]

    def to_json(self) -> dict[str, Any]:
        """Returns the lesson as the public JSON object. Its keys must not change.

        `settings` are those that differ from the tutorial's, or in a lesson that is not the tutorial's all that differ
        from the defaults. `mended` has the changes of the first of the `comparisons`, and is empty if there are none.
        """
        return {
            "name": self.name,
            "title": self.title,
            "settings": dict(self.settings if self.base is _TUTORIAL else {**self.base, **self.settings}),
            "mended": dict(self.comparisons[0]) if self.comparisons else {},
            "comparisons": [dict(changes) for changes in self.comparisons],
            "vary": list(self.vary),
            "before": self.before,
            "after": self.after,
            "printed": list(self.printed),
            "printed_unit": self.printed_unit,
            "printed_at": list(self.printed_at),
        }


LESSONS = {
    lesson.name: lesson
    for lesson in (
        Lesson(
            name="one-epoch",
            title="One epoch is not enough",
            is_mistake=True,
            settings={"epochs": 1},
            comparisons=({"epochs": 10, "momentum": 0.9},),
            before="Watch the loss within the epoch: 2.3026 is ln 10, the loss of random guessing among ten classes.",
            after="The loss fell by about 0.01 in 156 steps. It is going down, but after one pass at this lr the "
            "network still does little better than random guessing. More epochs, or momentum, get further.",
            printed=(2.2978, 2.2988, 2.3163, 2.3253, 2.2804),
            printed_unit="batch",
            printed_at=(1, 2, 3, 4, NUM_BATCHES),
        ),
        Lesson(
            name="softmax-plateau",
            title="One softmax too many",
            is_mistake=True,
            settings={"softmax": True, "epochs": 3},
            comparisons=({"softmax": False},),
            before="The network ends in a Softmax layer. Does the sum of an epoch's losses fall below 359, which is "
            "156 batches of random guessing?",
            after="It fell by about 0.01 per epoch. CrossEntropyLoss applies log-softmax itself; a second softmax "
            "before it makes the gradient so small that the network hardly learns.",
            printed=(
                359.2307, 359.2193, 359.2079, 359.1968, 359.1857, 359.1743,
                359.1625, 359.1497, 359.1360, 359.1210, 359.1043, 359.0850,
            ),
            printed_at=tuple(range(1, 13)),
        ),
        Lesson(
            name="adam-step-per-batch",
            title="Adam frozen by its schedule",
            is_mistake=True,
            settings={"optimizer": "adam", "lr": 0.01, "epochs": 3, **_STEP_PER_BATCH},
            comparisons=({"scheduler_unit": "epoch"},),
            before="scheduler.step() is called after every batch instead of every epoch. How long does lr last?",
            after="lr falls tenfold every 5 batches: after about 50 batches the weights no longer change. The loss "
            "stays, to the last digit, where Adam's first large steps took it.",
            printed=(1018.9046630859375, *[826.07275390625] * 19),
            printed_at=tuple(range(1, 21)),
        ),
        Lesson(
            name="sgd-step-per-batch",
            title="SGD frozen at the start",
            is_mistake=True,
            settings={"epochs": 3, **_STEP_PER_BATCH},
            comparisons=({"scheduler_unit": "epoch"},),
            before="The same schedule with SGD. Where does it freeze?",
            after="At the starting point: before lr ran out, SGD had taken only a few small steps.",
            printed=(359.4925, *[359.4839] * 19),
            printed_at=tuple(range(1, 21)),
        ),
        Lesson(
            name="zero-grad-never",
            title="Gradients never cleared",
            is_mistake=True,
            settings={"zero_grad_every": 0, "epochs": 3},
            comparisons=({"zero_grad_every": 1},),
            before="zero_grad is never called: every step also applies all earlier gradients again. Watch the loss "
            "within the first epoch.",
            after="The steps grew with every batch until the loss became NaN. Gradients add up unless they are "
            "cleared.",
        ),
        Lesson(
            name="zero-grad-every-4",
            title="Accumulation on purpose",
            settings={"zero_grad_every": 4, "epochs": 5},
            comparisons=({"zero_grad_every": 1, "batch_size": 256},),
            before="The gradients of four batches, each divided by four, add up before one step. Is that the same as a "
            "batch four times as large?",
            after="It is: the mean of four batches' gradients is the gradient of the four as one batch. This is how to "
            "train with a large batch if memory is small.",
        ),
        Lesson(
            name="muon-against-adamw",
            title="Muon against AdamW",
            base=_TODAY,
            settings={"optimizer": "muon"},
            comparisons=({"optimizer": "adamw"}, {"optimizer": "sgd"}),
            before="Three optimizers see the same batches, each at an lr that suits it. Which has learned most after "
            "three epochs, and how many pictures per second does it take for that?",
            after="Muon is far ahead from the first epoch on: its steps are equally large in all directions of a "
            "layer, where the others hardly move in most of them. Each step costs a little more. In a long training "
            "the lead shrinks.",
        ),
        Lesson(
            name="no-schedule",
            title="Without a schedule",
            base=_TODAY,
            settings={"optimizer": "adamw_schedulefree"},
            comparisons=(
                {"optimizer": "adamw", "scheduler": "cosine", "scheduler_unit": "batch"},
                {"optimizer": "adamw", "scheduler": "constant"},
            ),
            before="A schedule has to know how long the training lasts. Schedule-free AdamW keeps lr constant and "
            "tests an average of its weights. Compare it after each epoch with AdamW on a cosine, and with a constant "
            "lr.",
            after="It is ahead after every epoch, and could stop or go on at any of them. After so short a training, "
            "AdamW's cosine and its constant lr are nearly level.",
        ),
        Lesson(
            name="no-learning-rate",
            title="Without a learning rate",
            base=_TODAY,
            settings={"optimizer": "prodigy"},
            comparisons=({"optimizer": "adamw", "lr": 0.0003}, {"optimizer": "adamw", "lr": 0.03}),
            before="Nobody chose an lr for Prodigy: it stays at 1. The others are AdamW at a tenth and at ten times "
            "the lr that suits it. Who learns?",
            after="Prodigy found an lr by itself and learned. AdamW was slow with the small lr; with the large one its "
            "first steps broke the network, whose loss stays at ln 10, that of random guessing.",
        ),
        Lesson(
            name="l2-or-decoupled",
            title="Two kinds of weight decay",
            base=_TODAY,
            settings={"optimizer": "adam", "weight_decay": 0.03},
            comparisons=({"optimizer": "adamw", "weight_decay": 0.03},),
            before="Both have the same weight_decay. Adam adds it to the gradient (L2), AdamW applies it to the "
            "weights themselves. Is that the same?",
            after="It is not. Adam divides the sum by the size of past gradients, so that weights with small gradients "
            "are pulled to 0 with full force, and the network learns much less. AdamW pulls all weights alike, and "
            "gently.",
        ),
        Lesson(
            name="batch-and-lr",
            title="A larger batch",
            base=_TODAY,
            settings={"optimizer": "sgd", "lr": 0.02, "batch_size": 64, "num_images": 25_000},
            comparisons=(
                {"batch_size": 512},
                {"batch_size": 512, "lr": 0.16},
                {"batch_size": 512, "lr": 0.0566},
            ),
            before="Batches eight times as large take an eighth of the steps. Should lr stay, grow eightfold like the "
            "batch, or with its square root, by 2.8? The four runs see the same pictures equally often.",
            after="Small batches win: 512 pictures to a step are too few steps, whatever lr is. Growing with the "
            "square root costs least, and with the old lr the network only crawls. The eightfold lr, a rule that works "
            "with many more steps, a slow start and batch normalisation (Goyal et al. 2017), is more than this "
            "network can take.",
        ),
        Lesson(
            name="flat-minimum",
            title="A flat minimum",
            base=_TODAY,
            settings={"optimizer": "sam_adamw", "rho": 0.1, "num_images": 1000, "epochs": 20},
            comparisons=({"optimizer": "adamw"},),
            before="A thousand pictures are few enough to memorise. SAM, here over AdamW, looks for weights around "
            "which the loss stays low. Watch the test loss while the train loss falls.",
            after="AdamW memorised the pictures: its train loss keeps falling while its test loss rises, because it is "
            "sure of wrong answers. SAM's test loss keeps falling and stays low. It took twice the time, and got no "
            "more pictures right.",
        ),
        Lesson(
            name="edge-of-stability",
            title="The edge of stability",
            base=_TODAY,
            settings={
                "optimizer": "sgd",
                "lr": 0.1,
                "momentum": 0.0,
                "weight_decay": 0.0,
                "scheduler": "constant",
                "batch_size": 0,
                "num_images": 2000,
                "epochs": 120,
            },
            comparisons=({"lr": 0.05},),
            before="Every step uses all 2,000 pictures, so that chance plays no part. Does the loss fall smoothly? "
            "Then measure the sharpness of both runs in the tab Inside: by theory, steps are stable up to 2/lr, which "
            "is 20 here, and 40 at half the lr.",
            after="The sharpness climbed to about 2/lr and has hovered there since, at half the lr about twice as "
            "high. At that edge the loss goes up and down from step to step, and falls all the same in the long run "
            "(Cohen et al. 2021, arXiv:2103.00065). A larger lr keeps the network where the loss is flatter.",
        ),
        Lesson(
            name="how-forgiving",
            title="How forgiving is an optimizer?",
            base={},
            settings={"epochs": 2, "num_images": 10_000},
            vary=("optimizer=sgd,adam,adamw,muon,adamw_schedulefree", "lr=1e-4..1:9", "seed=0,1"),
            before="Five optimizers, each at nine learning rates from 0.0001 to 1, with two seeds. Which valley is the "
            "deepest? Which is the widest, so that a wrong guess of lr costs little? And where does each one break?",
            after="Muon's valley is the deepest: 61% of the test pictures right, at an lr of 0.03. Those of Adam and "
            "AdamW are the widest: at a tenth of their best lr they lose 9 points, where Muon loses 15 and SGD 18. The "
            "wall on the right is the steep one: at ten times its best lr none gets more than 21% right. When in "
            "doubt, choose the smaller lr.",
        ),
    )
}  # fmt: skip


@lru_cache(maxsize=256)  # a page looks up the same configs at every update
def lesson_of(config: TrainConfig) -> Lesson | None:
    """Returns the lesson whose settings a config has, or None; a sweep has no settings of its own.

    The seed may differ. The epochs may differ too, except in a lesson that is about their number.
    """
    trained = (lesson for lesson in LESSONS.values() if not lesson.vary)
    return next((lesson for lesson in trained if lesson.config == _comparable(config, lesson)), None)


def zero_grad_lab(config: TrainConfig, every: int) -> list[TrainConfig]:
    """Returns four configs: gradients cleared at each batch, every `every` batches and never, and larger batches.

    The batches of the last config are `every` times as large. With plain SGD its training equals that of the second.
    Raises UserError if `every` is below 2, if the batch size is above its limit, or if a batch is all pictures.
    """
    if every < 2:
        raise UserError("To accumulate gradients, clear them every 2 batches or more.")
    if not config.batch_size:
        raise UserError("A batch of all pictures cannot be larger: choose another batch_size.")
    cleared = [config.changed({"zero_grad_every": number}) for number in (1, every, 0)]
    return [*cleared, cleared[0].changed({"batch_size": config.batch_size * every})]


def _comparable(config: TrainConfig, lesson: Lesson) -> TrainConfig:
    """Returns the config with the lesson's seed and, unless a comparison run changes the epochs, with its epochs."""
    epochs = config.epochs if any("epochs" in changes for changes in lesson.comparisons) else lesson.config.epochs
    return replace(config, epochs=epochs, seed=lesson.config.seed)
