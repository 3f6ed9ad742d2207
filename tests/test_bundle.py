"""Bundling a run's network with the app."""

import sys

import pytest
from safetensors.torch import load_file

from scripts.bundle import bundle, main
from trainer import OptimizerLabModel
from ui.stored_runs import bundled


def test_a_runs_network_becomes_a_bundled_one(small_run, tmp_path):
    """In the folder that the page offers, as float16, with a card."""
    folder = bundle(small_run, tmp_path)
    assert folder.parent == tmp_path
    assert folder.name in bundled()
    weights = OptimizerLabModel.from_pretrained(small_run).state_dict()
    for name, tensor in OptimizerLabModel.from_pretrained(folder).state_dict().items():
        assert tensor.equal(weights[name].half().float()) or not tensor.is_floating_point()
    assert {str(tensor.dtype) for tensor in load_file(folder / "model.safetensors").values()} == {"torch.float16"}
    assert (folder / "README.md").exists()


def test_anything_but_a_run_is_refused(tmp_path, monkeypatch, capsys):
    """In one line, before anything is written."""
    monkeypatch.setattr(sys, "argv", ["scripts.bundle", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "error: There is no such run.\n"
