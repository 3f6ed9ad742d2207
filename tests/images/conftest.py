"""Fixtures of the tests of image sets: an empty cache, and no source from the environment."""

import functools
from pathlib import Path

import huggingface_hub.constants
import pytest

from trainer.images import synthetic

_draw_shapes = functools.cache(synthetic.draw_shapes)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder that images are cached in, empty at the start of each test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPTIMIZER_LAB_DATA")
    # Saves each test that loads them a second.
    monkeypatch.setattr(synthetic, "draw_shapes", _draw_shapes)
    return tmp_path / "home" / "optimizer-lab"


@pytest.fixture(autouse=True, scope="module")
def _no_progress_bars():
    """`datasets` would draw bars when the tests write Parquet files."""
    import datasets

    datasets.disable_progress_bars()
