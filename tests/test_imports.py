"""What the library imports, in which order, and what importing it changes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from imports import imported, modules_of

import trainer
from trainer.learning.optimizers import CLASSES

REPOSITORY = Path(__file__).parents[1]
MODULES = modules_of(trainer)
# Each module imports only from its own layer and from those before it.
LAYERS = (
    ("disk", "environment", "errors", "palette", "progress"),
    ("settings",),
    ("runs.events", "runs.run", "runs.comparison"),
    ("cache",),
    ("images",),
    ("networks",),
    ("learning",),
    ("runs",),
    ("insight",),
    ("jobs",),
    ("sweeps",),
    ("hub",),
    ("cli",),
)

IMPORT_ALL = """
import importlib, pkgutil, sys
import trainer
for module in pkgutil.walk_packages(trainer.__path__, "trainer."):
    importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.slow
def test_the_library_does_not_load_the_page():
    """Importing all modules of trainer loads neither the page's packages nor torchvision, which takes seconds."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=300
    )
    loaded = set(result.stdout.split())
    assert {"trainer", "torch"} <= loaded
    assert {"gradio", "spaces", "torchvision", "ui", "app"}.isdisjoint(loaded)


def layer(module: str) -> int:
    """Returns the number of a module's layer: the one that names the module itself or, failing that, its package."""
    _, package, *names = module.split(".")
    own = ".".join((package, *names))
    return next(number for name in (own, package) for number, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    """No module imports from a layer after its own."""
    wrong = {name for name in imported(MODULES[module]) & MODULES.keys() if layer(name) > layer(module)}
    assert wrong == set()


def test_the_layers_are_those_of_the_library():
    """Each layer has modules, and imports are found."""
    assert {layer(module) for module in MODULES} == set(range(len(LAYERS)))
    assert {"trainer.hub.retry", "trainer.networks.model"} <= imported(MODULES["trainer.hub.repositories"])
    assert layer("trainer.runs.run") < layer("trainer.runs.run_folder")


@pytest.mark.parametrize("module", [module for module in MODULES if layer(module) <= 2])
def test_plain_modules_import_only_the_standard_library(module):
    """Errors, progress, settings, events, runs and comparisons need nothing installed."""
    names = {name.partition(".")[0] for name in imported(MODULES[module])} - {"trainer"}
    assert names <= sys.stdlib_module_names


def test_the_public_names():
    """Code outside the app depends on `from trainer import …`."""
    assert trainer.__all__ == [
        "ImageData",
        "OptimizerLabModel",
        "Prediction",
        "TrainConfig",
        "classify",
        "evaluate",
        "load_images",
        "train",
    ]
    assert all(hasattr(trainer, name) for name in trainer.__all__)


def in_fresh_process(code: str) -> dict:
    """Returns the JSON that `code` prints in a process whose environment has no OMP_WAIT_POLICY."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_importing_the_library_changes_nothing():
    """Not the environment; torch is loaded only once a public name is used, but all are listed before."""
    found = in_fresh_process(
        "import json, os, sys; before = dict(os.environ); import trainer;"
        "listed = [name for name in dir(trainer) if name in trainer.__all__];"
        "light = 'torch' not in sys.modules; from trainer import *; train, classify;"
        "print(json.dumps([listed, light, 'torch' in sys.modules,"
        "                  {name: value for name, value in os.environ.items() if before.get(name) != value}]))"
    )
    listed, is_light, is_used, changed = found
    assert listed == trainer.__all__
    assert is_light
    assert is_used
    # Importing torch may set variables of its own.
    assert "OMP_WAIT_POLICY" not in changed
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = trainer.nonsense


# Prints OMP_WAIT_POLICY as it is when the import of torch begins.
PRINT_POLICY = """
import json, os, runpy, sys
class Finder:
    policies = []
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            self.policies.append(os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Finder())
try:
    {start}
except SystemExit:
    pass
print()
print(json.dumps(Finder.policies))
"""


@pytest.mark.parametrize(
    "start",
    [
        "sys.argv = ['trainer', 'lessons']; runpy.run_module('trainer', run_name='__main__', alter_sys=True)",
        "sys.path.insert(0, ''); runpy.run_path('app.py')",
    ],
    ids=["python -m trainer", "app.py"],
)
@pytest.mark.slow
def test_the_policy_of_waiting_threads_is_set_before_torch_is_loaded(start):
    """OpenMP reads OMP_WAIT_POLICY once, when torch is loaded; the command line and the app set it."""
    assert in_fresh_process(PRINT_POLICY.format(start=start)) == ["passive"]


# Packages whose modules have another name.
IMPORTED_AS = {
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "tensorboardx": "tensorboardX",
    "tensorflow-cpu": "tensorflow",
    "vl-convert-python": "vl_convert",
}
# Commands of scripts/check, and their plugins.
NOT_IMPORTED = {"mypy", "pytest_rerunfailures", "pytest_xdist", "ruff"}


def declared(lines: list[str]) -> set[str]:
    """Returns the modules of the packages in a list of requirements."""
    names = {re.match(r"[\w.-]+", line)[0].lower() for line in lines if re.match(r"\w", line)}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def installed(*places: str) -> set[str]:
    """Returns the modules of other packages that the Python files in some folders of the repository import."""
    folders = [REPOSITORY / place for place in places]
    files = [file for folder in folders for file in (folder.rglob("*.py") if folder.is_dir() else [folder])]
    modules = {name.partition(".")[0] for file in files for name in imported(file)}
    own = {path.stem for path in (*REPOSITORY.glob("*"), *(REPOSITORY / "tests").rglob("*.py"))}
    return modules - own - sys.stdlib_module_names


def requirements(name: str) -> list[str]:
    return (REPOSITORY / name).read_text(encoding="utf-8").splitlines()


def test_exactly_the_imported_packages_are_declared():
    """The library's in pyproject.toml, the app's in requirements.txt, the others in requirements-dev.txt.

    What only a benchmark compares the app with is in requirements-peers.txt.
    """
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (dependencies,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    (for_a_cluster,) = re.findall(r'^ray = \["(.*?)"\]', project, re.MULTILINE)
    of_a_cluster = declared([for_a_cluster])
    assert declared(requirements("requirements-ray.txt")) == of_a_cluster == {"ray"}
    assert declared(re.findall(r'^ *"(.*?)"', dependencies, re.MULTILINE)) == installed("trainer") - of_a_cluster
    (optional,) = re.findall(r"^optimizers = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    of_optimizers = {place.partition(":")[0].partition(".")[0] for place in CLASSES.values()} - {"torch", "trainer"}
    assert declared(re.findall(r'^ *"(.*?)"', optional, re.MULTILINE)) == of_optimizers
    of_the_app = declared(requirements("requirements.txt"))
    assert of_the_app == installed("app.py", "trainer", "ui") - of_a_cluster | of_optimizers
    of_development = declared(requirements("requirements-dev.txt"))
    of_peers = declared(requirements("requirements-peers.txt"))
    assert of_peers == installed("benchmarks/peers") - of_the_app
    of_the_rest = installed("tests", "scripts", "benchmarks") - of_the_app - of_a_cluster - of_peers
    assert of_development - NOT_IMPORTED == of_the_rest
