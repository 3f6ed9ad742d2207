"""Which device is chosen, and what is said where there is none of that name."""

import pytest
import torch

from trainer.device import DEVICES, choose_device


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this a machine with or without a CUDA or an Apple GPU."""

    def make(*, cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    ("there", "chosen"),
    [({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest_there_is(there, chosen, machine, monkeypatch):
    """Given, or where nothing is said at all."""
    machine(**there)
    assert choose_device("auto").type == chosen
    monkeypatch.delenv("OPTIMIZER_LAB_DEVICE")
    assert choose_device().type == chosen
    monkeypatch.setenv("OPTIMIZER_LAB_DEVICE", "")
    assert choose_device(None).type == chosen


def test_the_environment_is_overridden_by_what_is_given(machine, monkeypatch):
    """--device before OPTIMIZER_LAB_DEVICE before auto."""
    machine(cuda=True)
    monkeypatch.setenv("OPTIMIZER_LAB_DEVICE", "cpu")
    assert choose_device().type == "cpu"
    assert choose_device("cuda").type == "cuda"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there(name, machine):
    """Refused with a sentence, never replaced in silence."""
    machine()
    with pytest.raises(ValueError, match=f"no {name} device .*cpu always works"):
        choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:1", "tpu" * 50])
def test_an_unknown_device(name, monkeypatch):
    """Given or from the environment: the sentence lists what there is."""
    with pytest.raises(ValueError, match=", ".join(DEVICES)):
        choose_device(name)
    monkeypatch.setenv("OPTIMIZER_LAB_DEVICE", name)
    with pytest.raises(ValueError, match=", ".join(DEVICES)):
        choose_device()
