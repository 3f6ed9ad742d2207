"""Imports run one way: the library knows nothing of the page, and its plain parts nothing but Python."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trainer

PACKAGE = Path(trainer.__file__).parent
PLAIN = ("settings.config", "settings.lessons", "runs.events", "runs.run", "runs.comparison")

IMPORT_ALL = """
import importlib, pkgutil, sys
import trainer
for module in pkgutil.walk_packages(trainer.__path__, "trainer."):
    importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.slow
def test_the_library_does_not_load_the_page():
    """Every module of trainer, imported in a fresh process, brings in neither gradio nor spaces nor ui."""
    shown = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    assert {"trainer", "torch"} <= set(shown)
    assert {"gradio", "spaces", "ui", "app"}.isdisjoint(shown)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_modules_import_only_the_standard_library(name):
    """Settings, events, runs and comparisons need nothing installed, and of trainer only each other."""
    imported = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
    ours = {module for module in imported if module.startswith("trainer")}
    assert ours <= {f"trainer.{other}" for other in PLAIN}
    assert imported
    assert {module.partition(".")[0] for module in imported - ours} <= sys.stdlib_module_names


def test_the_public_names():
    """What `from trainer import …` promises to people outside the code."""
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
