"""Networks opened by their names: kept here, bundled, or on a Hub of our own; and who waits for a slow one."""

import time
from functools import partial

import anyio
import pytest
import torch
from fake_hub import Fault, Repo, point_to, silent_server
from huggingface_hub import constants
from safetensors.torch import load, save

from trainer.hub import retry
from trainer.networks.model import OptimizerLabModel
from ui.lab import BUNDLED
from ui.parts import checkpoints
from ui.parts.checkpoints import in_hub_thread, open_kept, open_model, open_published, open_run

ID = "owner/run"
CPU = torch.device("cpu")
PICTURE = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
PICKLE = b"\x80\x04cposix\nsystem\n."


class Kept:
    """Of a lab, what opening a network needs."""

    device = CPU

    def checkpoint(self, name):
        if name != "quick":
            raise ValueError("There is no such checkpoint.")
        return BUNDLED / name


@pytest.fixture
def hub(hub_with_run):
    return hub_with_run


def asked_for(hub, name):
    return [request for request in hub.requests if request.startswith("GET") and request.endswith(name)]


def test_a_published_network_is_the_librarys(hub):
    """The same probabilities, by the page's way and by the library's; on the device that was asked for."""
    ours = open_published(ID, CPU).probabilities(PICTURE)
    assert torch.equal(ours, OptimizerLabModel.from_pretrained(ID, token=False).probabilities(PICTURE))
    assert ours.device == CPU


def test_what_was_opened_is_not_fetched_again(hub):
    """The commit is asked for each time; files are fetched once, and the network is built once."""
    first = open_published(ID, CPU)
    hub.requests.clear()
    assert open_published(ID, CPU) is open_published(f"{ID}@main", CPU) is first
    assert {request.partition(" ")[0] for request in hub.requests} == {"HEAD"}
    assert len(hub.requests) == 2


def test_a_moved_branch_and_a_tag_are_followed(hub):
    """main is what it is now, a tag what it was."""
    repo = hub.repos[ID]
    repo.tags["epoch-0000"] = repo.head
    before = open_published(ID, CPU)
    weights = {name: tensor + 0.5 for name, tensor in load(repo.files["model.safetensors"]).items()}
    repo.add({**repo.files, "model.safetensors": save(weights)}, "Epoch 2")
    after = open_published(ID, CPU)
    assert torch.equal(after.network.linear2.bias, before.network.linear2.bias + 0.5)
    assert open_published(f"{ID}@epoch-0000", CPU) is before


def spoilt(repo, **files):
    """A repo with files in place of its own; without those that are None."""
    changed = {**repo.files, **{name.replace("_", "."): content for name, content in files.items()}}
    return Repo(commits={"1" * 40: {name: content for name, content in changed.items() if content is not None}})


def broken(repo):
    tensors = load(repo.files["model.safetensors"])
    return {
        "pickles": spoilt(repo, config_json=None, model_safetensors=None, **{"pytorch_model.bin": PICKLE}),
        "a pickle in safetensors' place": spoilt(repo, model_safetensors=PICKLE),
        "no weights": spoilt(repo, model_safetensors=None),
        "another shape": spoilt(
            repo, model_safetensors=save({name: tensor.flatten()[:1].clone() for name, tensor in tensors.items()})
        ),
        "not finite": spoilt(repo, model_safetensors=save({n: t.fill_(float("nan")) for n, t in tensors.items()})),
        "far too large": spoilt(repo, model_safetensors=bytes(3 << 20)),
        "a large config": spoilt(repo, config_json=b" " * (2 << 20)),
        "a huge network": spoilt(repo, config_json=b'{"class_names": ["a", "b"], "image_size": 80000}'),
        "gated": Repo(commits=dict(repo.commits), gated=True),
        "private": Repo(commits=dict(repo.commits), private=True),
    }


@pytest.mark.parametrize("case", broken(Repo(commits={"0": {"model.safetensors": save({"x": torch.ones(1)})}})))
def test_what_is_refused_is_refused_at_once(hub, case):
    """In a sentence, in a second; nothing of it is kept, and its name opens nothing later."""
    hub.repos[ID] = broken(hub.repos[ID])[case]
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^[^\n]{10,200}\.$"):
            open_published(ID, CPU)
    assert time.monotonic() - began < 2
    assert checkpoints._open.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("owner/nothing", "There is no owner/nothing on the Hub"),
        (f"{ID}@epoch-0009", "no such revision"),
        ("/etc/passwd", "not the name of a repo"),
        ("../..", "not the name of a repo"),
        ("owner/../run", "not the name of a repo"),
        ("https://huggingface.co/owner/run", "not the name of a repo"),
        (f"{ID}@../../x", "no such revision|not a revision"),
        ("x" * 100_000 + "/y", "not the name of a repo"),
        ("<script>/x", "not the name of a repo"),
    ],
)
def test_what_is_no_repo(hub, name, sentence):
    """A name that leads nowhere, or somewhere else."""
    with pytest.raises(ValueError, match=sentence) as refused:
        anyio.run(open_model, Kept(), name)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_told_at_once(hub, status):
    """Nobody waits before the page while the Hub is asked again and again."""
    hub.faults.append(Fault(method="HEAD", path=".", status=status, times=100))
    began = time.monotonic()
    with pytest.raises(ValueError, match="The Hub "):
        open_published(ID, CPU)
    assert time.monotonic() - began < 1
    assert len(hub.requests) == 2


def test_no_hub_at_all(monkeypatch, tmp_path):
    """Nobody listens there."""
    point_to("http://127.0.0.1:9", monkeypatch, tmp_path)
    began = time.monotonic()
    with pytest.raises(ValueError, match="The Hub cannot be reached"):
        open_published(ID, CPU)
    assert time.monotonic() - began < 1


def test_a_silent_hub_holds_up_nobody_else(monkeypatch, tmp_path):
    """However many wait for it, a network that is kept here is opened at once; and none of them waits for ever."""
    monkeypatch.setattr(retry, "SHORT_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setitem(in_hub_thread.__kwdefaults__, "seconds", 1.5)
    told = []

    async def wait():
        try:
            await open_model(Kept(), ID)
        except ValueError as error:
            told.append(str(error))

    async def visit():
        async with anyio.create_task_group() as visitors:
            for _ in range(50):
                visitors.start_soon(wait)
            await anyio.sleep(0.1)
            began = time.monotonic()
            for _ in range(3):
                await open_model(Kept(), "quick")
            assert time.monotonic() - began < 0.8
            assert told == []

    with silent_server() as endpoint:
        point_to(endpoint, monkeypatch, tmp_path)
        anyio.run(visit)
    assert set(told) == {
        "The Hub has not answered for 1 seconds; try again later.",
        "The Hub is too slow right now, or too many requests are waiting for it; try again later.",
    }
    assert len(told) == 50


@pytest.mark.parametrize("name", [None, 3, {}, ["owner/run"], "", "0" * 32])
def test_what_is_no_name_is_no_checkpoint(name):
    """As a hand-made request may send it."""
    with pytest.raises(ValueError, match="no such checkpoint"):
        anyio.run(open_model, Kept(), name)


def test_a_kept_network_is_read_again_when_its_file_was_replaced(tmp_path):
    """A run goes on being trained while one classifies with it."""

    class Runs:
        device = CPU

        def checkpoint(self, name):
            return tmp_path

    model = OptimizerLabModel.from_pretrained(BUNDLED / "quick")
    model.save_pretrained(tmp_path)
    first = open_kept(Runs(), "0" * 32)
    assert open_kept(Runs(), "0" * 32) is first
    weights = load((tmp_path / "model.safetensors").read_bytes())
    weights["network.conv1.bias"] += 1
    (tmp_path / "new").write_bytes(save(weights))
    (tmp_path / "new").replace(tmp_path / "model.safetensors")
    again = open_kept(Runs(), "0" * 32)
    assert torch.equal(again.network.conv1.bias, first.network.conv1.bias + 1)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="safetensors"):
        open_kept(Runs(), "0" * 32)


def test_what_comes_with_the_app_asks_no_hub(monkeypatch):
    """Nor does a run that is kept here."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    kept = open_kept(Kept(), "quick")
    assert torch.equal(anyio.run(open_model, Kept(), "quick").network.conv1.bias, kept.network.conv1.bias)


def test_a_private_repo_opens_for_its_owner_alone(hub, monkeypatch):
    """And what their token has opened is not handed to whoever comes without one."""
    hub.repos[ID].private = True
    monkeypatch.setattr(checkpoints, "own_token", lambda: "hf_owner_reads")
    open_published(ID, CPU)
    open_run(ID)
    monkeypatch.setattr(checkpoints, "own_token", lambda: None)
    for again in (partial(open_published, ID, CPU), partial(open_run, ID)):
        with pytest.raises(ValueError, match="private"):
            again()


def test_the_language_goes_along():
    """What is called in a thread for the Hub knows whose event it is handling."""
    from contextvars import ContextVar

    whose = ContextVar("whose")

    async def handle():
        whose.set("a visitor's")
        return await in_hub_thread(partial(whose.get))

    assert anyio.run(handle) == "a visitor's"
