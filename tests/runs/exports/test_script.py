"""Scripts run without the app, repeat the figures of train() and contain no code that a stranger wrote."""

import ast
import contextlib
import io
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import first_is_quick
from fake_hub import Hub, Repo, serve
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.io import encode_jpeg, encode_png, write_png

import trainer
from trainer.images import readers
from trainer.images.image_data import facts, load_images, subset
from trainer.images.sources import CIFAR10_REVISION
from trainer.learning.loop import train
from trainer.learning.schedulers import preview, spans_run
from trainer.networks.pretrained import BUNDLED
from trainer.runs.events import EpochEnded
from trainer.runs.exports.script import as_code
from trainer.runs.exports.script.formatting import WIDTH
from trainer.settings.config import MODELS, TrainConfig
from trainer.settings.lessons import LESSONS
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS

HUB = {"name": "CIFAR-10", "source": "hub", "revision": CIFAR10_REVISION, "digest": "0" * 64}
SMALL = {"epochs": 2, "batch_size": 8, "flip": False, "shift": 0}
REPORT = re.compile(
    r"epoch (\d+): train loss (\S+), sum of batch losses (\S+)\n +test loss (\S+), accuracy (\S+)%\n", re.ASCII
)


@pytest.fixture(scope="module")
def few(images):
    """28 training and 20 test pictures: four batches of eight, the last of them with four."""
    return replace(images, train=subset(images.train, 28), test=subset(images.test, 20), digest="28/20")


@pytest.fixture
def drawn_here(few, monkeypatch):
    """Scripts that load the synthetic shapes from trainer get few of them, and find the bundled networks."""
    monkeypatch.chdir(BUNDLED.parent)
    monkeypatch.setattr(trainer, "load_images", {"synthetic": few}.get)
    return few


def run_here(code: str) -> tuple[str, dict]:
    """Returns what a script prints and its variables; torch's random state stays as it was."""
    printed, variables = io.StringIO(), {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed):
        exec(compile(code, "script.py", "exec"), variables)
    return printed.getvalue(), variables


def run_alone(code: str, folder: Path, **environment: str) -> str:
    """Returns what a script prints in its own process, without trainer and with warnings as errors."""
    assert "trainer" not in code
    (folder / "script.py").write_text(code, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def assert_alike(printed: str, config: TrainConfig, data, loss: float = 1e-4, accuracy: float = 0.0) -> None:
    """Asserts that the script's figures are those of train(), within relative `loss` and absolute `accuracy` (0–1)."""
    rows = [tuple(map(float, row)) for row in REPORT.findall(printed)]
    history = [event for event in train(config, data) if isinstance(event, EpochEnded)][1:]
    assert len(rows) == config.epochs
    assert len(history) == config.epochs
    for (epoch, train_loss, loss_sum, test_loss, percent), event in zip(rows, history, strict=True):
        assert epoch == event.epoch
        # The script writes four digits after the point.
        assert train_loss == pytest.approx(event.train_loss, rel=loss, abs=6e-5)
        assert loss_sum == pytest.approx(event.train_loss_sum, rel=loss, abs=6e-5)
        assert test_loss == pytest.approx(event.test_loss, rel=loss, abs=6e-5)
        assert percent / 100 == pytest.approx(event.test_accuracy, abs=accuracy + 6e-5)


def few_steps(lesson: TrainConfig) -> TrainConfig:
    return lesson.changed({"batch_size": min(lesson.batch_size, 5), "epochs": min(lesson.epochs, 3), "num_images": 0})


# --- the same figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_fixed", [False, True], ids=["mistake", "fixed"])
@pytest.mark.parametrize("name", first_is_quick(sorted(set(LESSONS) - {"zero-grad-never", "how-forgiving"})))
def test_each_lesson_and_its_fixed_version(name, is_fixed, drawn_here):
    config = few_steps(LESSONS[name].compared[0] if is_fixed else LESSONS[name].config)
    assert_alike(run_here(as_code(config, facts(drawn_here)))[0], config, drawn_here)


# The optimizer matters to onecycle and cyclic alone: without momentum, the script has to turn cycle_momentum off, and
# cyclic replaces the optimizer's lr.
PAIRS = [
    *[(name, row.scheduler) for name, row in OPTIMIZERS.items()],
    *itertools.product(["sgd"], sorted(set(SCHEDULERS) - {"onecycle"})),
    ("adagrad", "cyclic"),
    ("adam", "cyclic"),
]


@pytest.mark.parametrize(("optimizer", "scheduler"), first_is_quick(PAIRS))
def test_each_optimizer_and_each_scheduler(optimizer, scheduler, drawn_here):
    """Each works with its own defaults, shuffled, normalised, and with a smaller last batch."""
    config = TrainConfig(optimizer=optimizer, scheduler=scheduler, seed=3, **SMALL)
    assert_alike(run_here(as_code(config, facts(drawn_here)))[0], config, drawn_here)


OTHERWISE = [
    {"nesterov": True, "lr": 0.01},
    {"dampening": 0.5, "momentum": 0.5, "weight_decay": 0.1},
    {"optimizer": "adam", "betas": (0.8, 0.9), "eps": 1e-3, "amsgrad": True},
    {"optimizer": "adam", "weight_decay": 0.5, "decoupled_weight_decay": True},
    {"optimizer": "rmsprop", "alpha": 0.9, "momentum": 0.5, "centered": True},
    {"optimizer": "adagrad", "lr_decay": 0.1, "initial_accumulator_value": 0.5},
    {"optimizer": "adadelta", "rho": 0.5},
    {"optimizer": "nadam", "momentum_decay": 0.5},
    {"scheduler": "plateau", "patience": 0, "threshold": 10.0, "threshold_mode": "abs", "min_lr": 1e-3, "epochs": 4},
    {"scheduler": "onecycle", "cycle_momentum": True, "base_momentum": 0.5, "max_momentum": 0.6},
    {"scheduler": "cyclic", "cycle_momentum": True, "step_size_up": 2},
    {"zero_grad_every": 0, "lr": 1e-3, "momentum": 0.0},
    {"zero_grad_every": 4, "scheduler": "onecycle", "pct_start": 0.5, "epochs": 3},
    {"label_smoothing": 0.2},
    {"activation": "none", "normalize": False, "softmax": True},
    {"shuffle": False, "drop_last": True},
    {"train_split": "test", "num_images": 17},
    {"num_images": 20, "seed": 2**31 - 1, "batch_size": 20},
    {"holdout": 0.25},
    {"batch_size": 0, "epochs": 3},
    {"epochs": 1, "scheduler": "cosine", "scheduler_unit": "batch"},
    {"optimizer": "muon", "adamw_lr": 0.01, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
    {"optimizer": "adan", "betas": (0.9, 0.8), "beta3": 0.7, "weight_decay": 0.1},
    {"optimizer": "mars", "mars_gamma": 0.1},
    {"optimizer": "adopt", "weight_decay": 0.1, "decoupled_weight_decay": True},
    {"optimizer": "prodigy", "weight_decay": 0.1, "d_coef": 2.0},
    {"optimizer": "adamw_schedulefree", "num_warmup_steps": 1},
    {"optimizer": "adamw_schedulefree", "zero_grad_every": 0, "lr": 1e-4},
    {"optimizer": "sgd_schedulefree", "model": "fast", "lr": 0.01},
    {"optimizer": "sam", "model": "fast", "lr": 0.001, "rho": 0.1},
    {"optimizer": "sam_adamw", "precision": "bfloat16"},
    {"model": "fast", "lr": 0.001},
    {"model": "fast", "lr": 0.001, "activation": "none", "normalize": False, "softmax": True, "label_smoothing": 0.1},
    {"pretrained": "finetuned"},
    {"pretrained": "frozen", "optimizer": "adamw_schedulefree", "zero_grad_every": 0, "lr": 1e-4},
    {"model": "fast", "pretrained": "finetuned", "lr": 0.001},
    {"model": "fast", "pretrained": "frozen", "optimizer": "sam", "softmax": True},
]


@pytest.mark.parametrize("settings", first_is_quick(OTHERWISE), ids=str)
def test_settings_of_every_kind(settings, drawn_here):
    config = TrainConfig.from_settings({**SMALL, "scheduler": "constant", **settings})
    assert_alike(run_here(as_code(config, facts(drawn_here)))[0], config, drawn_here)


def test_bfloat16(drawn_here):
    """Half precision rounds each product: the figures agree within its three digits."""
    config = TrainConfig(precision="bfloat16", **SMALL)
    assert_alike(run_here(as_code(config, facts(drawn_here)))[0], config, drawn_here, loss=0.02, accuracy=0.1)


@pytest.mark.slow
def test_float16(drawn_here):
    """The script is for a GPU; run on the CPU instead, it learns as the app does with float32."""
    config = TrainConfig(precision="float16", **SMALL)
    code = as_code(config, facts(drawn_here)).replace('"cuda"', '"cpu"').replace(".cuda()", ".cpu()")
    # The default of 65,536 overflows some gradients: steps are skipped, the schedule warns and the losses differ.
    code = code.replace('GradScaler("cpu")', 'GradScaler("cpu", init_scale=1024.0)')
    in_float32 = replace(config, precision="float32")
    assert_alike(run_here(code)[0], in_float32, drawn_here, loss=0.02, accuracy=0.1)


def test_gradients_never_cleared(drawn_here):
    """The app stops when the loss becomes NaN; the script continues."""
    config = LESSONS["zero-grad-never"].config.changed({"batch_size": 1, "lr": 0.1, "epochs": 2})
    printed, _ = run_here(as_code(config, facts(drawn_here)))
    assert [event.epoch for event in train(config, drawn_here) if isinstance(event, EpochEnded)] == [0]
    assert [row[1] for row in REPORT.findall(printed)] == ["nan", "nan"]


@pytest.mark.parametrize(("flip", "shift"), [(True, 2), (False, 1), (True, 0)])
def test_augmentation(drawn_here, flip, shift):
    """The random draws are the script's own; the rest is the app's, so that the losses are about the same."""
    config = TrainConfig(**{**SMALL, "flip": flip, "shift": shift})
    code = as_code(config, facts(drawn_here))
    printed, variables = run_here(code)
    assert_alike(printed, config, drawn_here, loss=0.1, accuracy=0.3)
    assert variables["images"].shape == (4, 3, 32, 32)
    assert ("crop(" in code, "flip(" in code) == (shift > 0, flip)


# Unit, warm-up and accumulation interact only in schedules that span the run; the others are tested with two mixtures.
SCHEDULES = [
    {"scheduler": name, "scheduler_unit": unit, "num_warmup_steps": warmup, "zero_grad_every": every}
    for name in sorted(set(SCHEDULERS) - {"plateau"})
    for unit, warmup, every in (
        itertools.product(("epoch", "batch"), (0, 2), (1, 4))
        if spans_run(TrainConfig(scheduler=name))
        else (("epoch", 0, 1), ("batch", 2, 4))
    )
] + [
    {"scheduler": "step", "step_size": 2, "gamma": 0.5},
    {"scheduler": "multistep", "milestones": (1, 3)},
    {"scheduler": "multistep", "milestones": (4,), "scheduler_unit": "batch"},
    {"scheduler": "cosine", "T_max": 3, "eta_min": 0.001},
    {"scheduler": "onecycle", "pct_start": 0.4, "three_phase": True, "anneal_strategy": "linear", "div_factor": 2},
    {"scheduler": "cyclic", "base_lr": 0.0, "num_warmup_steps": 3},
    {"scheduler": "cyclic", "step_size_up": 2, "step_size_down": 3, "mode": "triangular2"},
    {"scheduler": "cyclic", "step_size_up": 1, "mode": "triangular2", "epochs": 400},
    {"scheduler": "cyclic", "step_size_up": 3, "mode": "exp_range", "gamma": 0.9},
    {"scheduler": "linear", "start_factor": 0.5, "end_factor": 0.1, "total_iters": 3},
]


@pytest.mark.parametrize("settings", first_is_quick(SCHEDULES), ids=str)
def test_the_lr_of_every_step(settings, tiny_steps):
    """Each schedule gives the lr that preview gives, by epoch or batch, with warm-up or accumulation."""
    config = TrainConfig.from_settings({**SMALL, "epochs": 9, "lr": 0.05, **settings})
    every = config.zero_grad_every
    lrs = [lr for step, lr in preview(config, batches_per_epoch=4) if step % every == 0]
    assert tiny_steps(as_code(config, HUB | {"source": "synthetic"})) == pytest.approx(lrs, rel=1e-9, abs=1e-15)


@pytest.fixture
def tiny_steps(few, monkeypatch):
    """A function that returns the lr of each step of a script, run with a tiny network."""
    monkeypatch.setattr(trainer, "load_images", {"synthetic": few}.get)

    def lrs(code: str) -> list[float]:
        code = re.sub(r"network = nn\.Sequential\(\n(    .*\n)*\)", TINY, code)
        seen = []
        hook = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
        try:
            run_here(code)
        finally:
            hook.remove()
        return seen

    return lrs


TINY = "network = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3, 10))"


# --- sources of pictures ---------------------------------------------------------------------------------------------


def camera(height: int, width: int, seed: int) -> torch.Tensor:
    """Returns a picture, uint8 [3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].mul(255).to(torch.uint8)


def encoded(seed: int) -> bytes:
    """Returns a JPEG or PNG file: of 32×32 pixels, or larger in portrait, landscape or nearly square format."""
    height, width = [(32, 32), (50, 41), (40, 97), (32, 33)][seed % 4]
    encode = encode_jpeg if seed % 3 else encode_png
    return encode(camera(height, width, seed)).numpy().tobytes()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> Path:
    """A dataset's folder with pictures of several sizes, unusual column names and a class without test pictures."""
    import datasets

    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("parquet")
    names = datasets.ClassLabel(names=["cat", "dog", "eel", "fox"])
    features = datasets.Features({"id": datasets.Value("int64"), "fine": names, "photo": datasets.Image()})
    for split, numbers in (("train", range(40)), ("test", range(50, 62))):
        rows = {
            "id": list(numbers),
            "fine": [number % (4 if split == "train" else 3) for number in numbers],
            "photo": [{"bytes": encoded(number), "path": None} for number in numbers],
        }
        (folder / "data").mkdir(exist_ok=True)
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """An image folder with files of several sizes and the worst possible name."""
    folder = tmp_path_factory.mktemp("pictures") / "我的 {0} \"pets\" 'n' \\ \n# -*- coding: utf-7 -*-"
    numbers = random.Random(5).sample(range(100), 52)
    for index, number in enumerate(numbers):
        of_class = folder / ("train" if index < 40 else "test") / ["Zebra", "ant", "bee é"][index % 3]
        of_class.mkdir(parents=True, exist_ok=True)
        (of_class / f"{number}.{'png' if number % 3 == 0 else 'jpg'}").write_bytes(encoded(number))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "pictures"])
def test_a_folder(kind, request):
    """The script reads the same pixels, in the same order, for the same number of classes."""
    data = load_images(str(request.getfixturevalue(kind)))
    config = TrainConfig(**SMALL)
    code = as_code(config, facts(data))
    printed, variables = run_here(code)
    for split in ("train", "test"):
        expected = getattr(data, split)
        assert torch.equal(variables[f"{split}_images"], expected.images)
        assert torch.equal(variables[f"{split}_labels"], expected.labels)
    assert variables["outputs"].shape[1] == len(data.class_names)
    assert_alike(printed, config, data)


def test_a_colour_that_is_the_same_everywhere(images, tmp_path):
    """The standard deviation of the red channel is 0: the script avoids dividing by it, as the app does."""
    for split, part in (("train", images.train), ("test", images.test)):
        for index in range(20):
            picture = part.images[index].clone()
            picture[0] = 200
            file = tmp_path / split / str(index % 2) / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_png(picture.contiguous(), str(file))
    config, data = TrainConfig(**SMALL), load_images(str(tmp_path))
    printed, _ = run_here(as_code(config, facts(data)))
    assert_alike(printed, config, data)


@pytest.mark.slow
def test_a_folder_without_the_app(pictures, tmp_path):
    config, data = TrainConfig(**SMALL), load_images(str(pictures))
    assert_alike(run_alone(as_code(config, facts(data)), tmp_path), config, data)


@pytest.mark.slow
def test_the_hub(parquet, images, tmp_path):
    """The script loads any dataset at its commit, and CIFAR-10, by `datasets` alone."""
    import datasets

    names = datasets.ClassLabel(names=list(readers.CIFAR10_CLASSES))
    features = datasets.Features({"img": datasets.Image(), "label": names})
    cifar10 = tmp_path / "cifar10" / "plain_text"
    cifar10.mkdir(parents=True)
    for split, part in (("train", images.train), ("test", images.test)):
        files = [encode_png(picture.contiguous()).numpy().tobytes() for picture in part.images[:20]]
        rows = {"img": [{"bytes": file, "path": None} for file in files], "label": part.labels[:20].tolist()}
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(cifar10 / f"{split}-00000-of-00001.parquet")
    repos = {
        "datasets/uoft-cs/cifar10": Repo.of(cifar10.parent, commit=CIFAR10_REVISION),
        "datasets/someone/pets": Repo.of(parquet, commit="a" * 40),
    }
    config = TrainConfig(**SMALL)
    with serve(Hub(repos=repos)) as hub:
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
        default = run_alone(as_code(config, HUB), tmp_path, **environment)
        pets = {"source": "someone/pets@" + "a" * 40, "revision": "a" * 40}
        named = run_alone(as_code(config, pets), tmp_path, **environment)
    assert_alike(default, config, load_images(str(cifar10.parent)))
    assert_alike(named, config, load_images(str(parquet)))


def test_torchvision(few, monkeypatch):
    """The script loads torchvision's class, whose images have their channels last."""

    def download(root, *, train, download):
        part = few.train if train else few.test
        return types.SimpleNamespace(data=part.images.permute(0, 2, 3, 1).numpy(), targets=part.labels.tolist())

    monkeypatch.setattr("torchvision.datasets.CIFAR10", download)
    config = TrainConfig(**SMALL)
    printed, _ = run_here(as_code(config, {"source": "torchvision", "revision": None}))
    assert_alike(printed, config, few)


def test_real_pictures(real_images, tmp_path):
    """On CIFAR-10, in its own process, the script repeats the figures of a lesson with large losses."""
    config = LESSONS["adam-step-per-batch"].config.changed({"epochs": 1, "num_images": 1280})
    assert_alike(run_alone(as_code(config, facts(real_images)), tmp_path), config, real_images)


# --- hostile sources, readable scripts -------------------------------------------------------------------------------

EVIL = [
    '"); import os; os.system("touch owned")  # ',
    "'); raise SystemExit  # ",
    '"""',
    "'''\nraise SystemExit\n'''",
    "x\nraise SystemExit",
    "x\rraise SystemExit",
    "x\u2028raise SystemExit",
    "\\",
    "\\'",
    "\\\"'",
    "{folder} {split!r} %s",
    "coding: utf-7 +AAo-raise SystemExit",
    "\u202e\u2066 backwards",
    "\x00\x1b[2J",
    "\udcff",
    "load_images( np. random.Random datasets.",
]


def shape(code: str) -> tuple[str, set[str]]:
    """Returns a script's syntax tree without its strings, and the strings. Parses bytes, as Python reads a file."""
    tree, texts = ast.parse(code.encode()), set()
    # A string may add one of the script's own imports; the test below checks that there are no others.
    tree.body = [node for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
            node.value = ""
    return ast.dump(tree), texts


@pytest.mark.parametrize("source", EVIL)
def test_a_source_is_only_text(source):
    """Whatever source a stranger's training.json names, the script contains it as one string."""
    code = as_code(TrainConfig(), {"name": source, "source": source, "revision": None, "digest": source})
    grammar, texts = shape(code)
    assert grammar == shape(as_code(TrainConfig(), {"source": "/pictures", "revision": None}))[0]
    assert source in texts
    assert all(line.isprintable() for line in code.split("\n"))
    assert all(re.match("(import|from) [a-z0-9_.]+ (import|as) ?|import [a-z]+$", line) for line in imported(code))


def imported(code: str) -> list[str]:
    return [line for line in code.splitlines() if re.match("(import|from) ", line)]


@pytest.mark.parametrize("source", [*EVIL, "../secret", "/etc/passwd", "a/b/c", "owner/name", ""])
def test_a_dataset_must_have_a_name_the_hub_could_have(source):
    expected = r"^The run('s pictures come from a dataset| does not say which pictures)[^\n]*\.$"
    with pytest.raises(ValueError, match=expected):
        as_code(TrainConfig(), {"source": source, "revision": "a" * 40})


@pytest.mark.parametrize("revision", EVIL)
def test_a_commit_is_only_text(revision):
    revision = revision.replace("@", "")
    grammar, texts = shape(as_code(TrainConfig(), {"source": f"a/b@{revision}", "revision": revision}))
    assert grammar == shape(as_code(TrainConfig(), {"source": "a/b@" + "c" * 40, "revision": "c" * 40}))[0]
    assert {"a/b", revision} <= texts


@pytest.mark.parametrize("data", [{}, {"source": None}, {"source": "", "revision": None}])
def test_pictures_from_nowhere(data):
    with pytest.raises(ValueError, match="does not say which pictures"):
        as_code(TrainConfig(), data)


def written(folder: Path, parquet: Path) -> None:
    """Writes scripts of all kinds."""
    sources = [HUB, *({"source": source} for source in ("torchvision", "synthetic", "/pictures", str(parquet)))]
    configs = [TrainConfig(), *(lesson.config for lesson in LESSONS.values())]
    configs += [TrainConfig.from_settings(settings) for settings in [*OTHERWISE, *SCHEDULES]]
    configs += [TrainConfig(optimizer=name, model=model) for name in OPTIMIZERS for model in MODELS]
    configs += [TrainConfig(optimizer="sgd_schedulefree", zero_grad_every=0)]
    configs += [TrainConfig(precision=name, zero_grad_every=2) for name in ("bfloat16", "float16")]
    configs += [TrainConfig(model="fast"), TrainConfig(model="fast", precision="float16", normalize=False)]
    for number, config in enumerate(configs):
        (folder / f"{number}.py").write_text(as_code(config, sources[number % len(sources)]))


def test_written_as_ruff_would(tmp_path, parquet):
    """Scripts are formatted, with sorted imports, nothing unused and nothing undefined."""
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not ruff:
        pytest.skip("ruff is not installed")
    written(tmp_path, parquet)
    options = ["--isolated", f"--line-length={WIDTH}", "."]
    for command in (["format", "--diff"], ["check", "--select=E,F,I,W"]):
        result = subprocess.run([ruff, *command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr


def num_lines(code: str) -> int:
    return sum(not line.lstrip().startswith("#") for line in code.splitlines() if line.strip())


def test_short():
    """A lesson of the notebook takes at most 40 lines, the default settings 50; some optimizers are written out."""
    for lesson in (lesson for lesson in LESSONS.values() if not lesson.vary):
        most = 140 if lesson.config.optimizer in ("muon", "sam_adamw") else 50 if not lesson.printed else 40
        assert num_lines(as_code(lesson.config, HUB)) <= most
    assert num_lines(as_code(TrainConfig(), HUB)) <= 50


def test_only_what_a_setting_needs():
    """The tutorial's five lines are in its order, and unused settings leave no trace."""
    code = as_code(LESSONS["one-epoch"].config, HUB)
    loop = """
        outputs = network(images / 255)
        loss = loss_function(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item()
"""
    assert loop in code
    absent = (
        "scheduler warmup scaler autocast Softmax ReLU smoothing momentum Normalize v2 numpy hashlib order cuda step "
    )
    assert [word for word in absent.split() if re.search(rf"\b{word}\b(?!\()", code)] == []
    assert "nn.Softmax(dim=1)" in as_code(LESSONS["softmax-plateau"].config, HUB)
    assert "zero_grad() is missing" in as_code(LESSONS["zero-grad-never"].config, HUB)
    assert "(loss / 4).backward()" in as_code(LESSONS["zero-grad-every-4"].config, HUB)
    assert "optimizer, step_size=5)" in as_code(LESSONS["sgd-step-per-batch"].config, HUB)
