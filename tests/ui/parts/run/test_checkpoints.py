"""Opening networks by name: stored, bundled, or published on a fake Hub, which may fail or be slow."""

import time
from functools import partial
from types import SimpleNamespace

import anyio
import pytest
import torch
from fake_hub import Fault, Repo, point_to, silent_server
from huggingface_hub import constants
from safetensors.torch import load, save

from trainer.errors import UserError
from trainer.hub import retry
from trainer.networks.model import OptimizerLabModel
from trainer.networks.pretrained import BUNDLED
from ui.parts.run import checkpoints
from ui.parts.run.checkpoints import in_hub_thread, open_kept, open_model, open_published, open_run

ID = "owner/run"
CPU = torch.device("cpu")
PICTURE = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
PICKLE = b"\x80\x04cposix\nsystem\n."


def lab_with(folders):
    """Returns a stand-in for a Lab that has only these checkpoints, by name."""

    def checkpoint(name):
        if not isinstance(name, str) or name not in folders:
            raise UserError("There is no such checkpoint.")
        return folders[name]

    return SimpleNamespace(device=CPU, runs=SimpleNamespace(checkpoint=checkpoint))


LAB = lab_with({"quick": BUNDLED / "quick"})


@pytest.fixture
def hub(hub_with_run):
    return hub_with_run


def asked_for(hub, name):
    return [request for request in hub.requests if request.startswith("GET") and request.endswith(name)]


@pytest.mark.quick
def test_a_published_network_equals_that_of_the_library(hub):
    """Page and library compute the same probabilities; the network is on the requested device."""
    ours = open_published(ID, CPU).probabilities(PICTURE)
    assert torch.equal(ours, OptimizerLabModel.from_pretrained(ID, token=False).probabilities(PICTURE))
    assert ours.device == CPU


def test_a_published_network_is_downloaded_once(hub):
    """Each call looks up the commit again; the files are downloaded and the network is built only once."""
    first = open_published(ID, CPU)
    hub.requests.clear()
    assert open_published(ID, CPU) is open_published(f"{ID}@main", CPU) is first
    assert {request.partition(" ")[0] for request in hub.requests} == {"HEAD"}
    assert len(hub.requests) == 2


def test_a_branch_is_followed_and_a_tag_stays(hub):
    """After a new commit, main opens the new network, and a tag the one of its own commit."""
    repo = hub.repos[ID]
    repo.tags["epoch-0000"] = repo.head
    before = open_published(ID, CPU)
    weights = {name: tensor + 0.5 for name, tensor in load(repo.files["model.safetensors"]).items()}
    repo.add({**repo.files, "model.safetensors": save(weights)}, "Epoch 2")
    after = open_published(ID, CPU)
    assert torch.equal(after.network.linear2.bias, before.network.linear2.bias + 0.5)
    assert open_published(f"{ID}@epoch-0000", CPU) is before


def replaced(repo, **files):
    """Returns a copy of a repo with replaced files, and without those that are None; `_` in a name stands for a dot."""
    changed = {**repo.files, **{name.replace("_", "."): content for name, content in files.items()}}
    return Repo(commits={"1" * 40: {name: content for name, content in changed.items() if content is not None}})


def broken(repo):
    """Returns variants of a repo that cannot be opened, by their names."""
    tensors = load(repo.files["model.safetensors"])
    return {
        "pickles": replaced(repo, config_json=None, model_safetensors=None, **{"pytorch_model.bin": PICKLE}),
        "a pickle in safetensors' place": replaced(repo, model_safetensors=PICKLE),
        "no weights": replaced(repo, model_safetensors=None),
        "another shape": replaced(
            repo, model_safetensors=save({name: tensor.flatten()[:1].clone() for name, tensor in tensors.items()})
        ),
        "not finite": replaced(repo, model_safetensors=save({n: t.fill_(float("nan")) for n, t in tensors.items()})),
        "far too large": replaced(repo, model_safetensors=bytes(3 << 20)),
        "a large config": replaced(repo, config_json=b" " * (2 << 20)),
        "a huge network": replaced(repo, config_json=b'{"class_names": ["a", "b"], "image_size": 80000}'),
        "gated": Repo(commits=dict(repo.commits), gated=True),
        "private": Repo(commits=dict(repo.commits), private=True),
    }


@pytest.mark.parametrize("case", broken(Repo(commits={"0": {"model.safetensors": save({"x": torch.ones(1)})}})))
def test_a_broken_repo_is_refused_at_once(hub, case):
    """Within a second, with one sentence; nothing is cached, and the second attempt is refused too."""
    hub.repos[ID] = broken(hub.repos[ID])[case]
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^[^\n]{10,200}\.$"):
            open_published(ID, CPU)
    assert time.monotonic() - start < 2
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
def test_an_invalid_name_is_refused(hub, name, sentence):
    """Repos and revisions that do not exist, paths, addresses and markup; the error is short."""
    with pytest.raises(ValueError, match=sentence) as refused:
        anyio.run(open_model, LAB, name)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failing_hub_is_reported_at_once(hub, status):
    """After one retry, so that the visitor does not wait for many."""
    hub.faults.append(Fault(method="HEAD", path=".", status=status, times=100))
    start = time.monotonic()
    with pytest.raises(ValueError, match="The Hub "):
        open_published(ID, CPU)
    assert time.monotonic() - start < 1
    assert len(hub.requests) == 2


def test_an_unreachable_hub_is_reported_at_once(monkeypatch, tmp_path):
    """No server listens on its port."""
    point_to("http://127.0.0.1:9", monkeypatch, tmp_path)
    start = time.monotonic()
    with pytest.raises(ValueError, match="The Hub cannot be reached"):
        open_published(ID, CPU)
    assert time.monotonic() - start < 1


@pytest.mark.slow
def test_a_silent_hub_does_not_delay_other_visitors(monkeypatch, tmp_path):
    """While fifty requests wait for it, a stored network opens at once; all of them time out."""
    monkeypatch.setattr(retry, "SHORT_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setitem(in_hub_thread.__kwdefaults__, "seconds", 1.5)
    errors = []

    async def wait():
        try:
            await open_model(LAB, ID)
        except ValueError as error:
            errors.append(str(error))

    async def visit():
        async with anyio.create_task_group() as visitors:
            for _ in range(50):
                visitors.start_soon(wait)
            await anyio.sleep(0.1)
            start = time.monotonic()
            for _ in range(3):
                await open_model(LAB, "quick")
            assert time.monotonic() - start < 0.8
            assert errors == []

    with silent_server() as endpoint:
        point_to(endpoint, monkeypatch, tmp_path)
        anyio.run(visit)
    assert set(errors) == {
        "The Hub has not answered for 1 seconds; try again later.",
        "The Hub is too slow right now, or too many requests are waiting for it; try again later.",
    }
    assert len(errors) == 50


@pytest.mark.parametrize("name", [None, 3, {}, ["owner/run"], "", "0" * 32])
def test_a_value_that_is_no_name_is_refused(name):
    """A handcrafted request may send anything."""
    with pytest.raises(ValueError, match="no such checkpoint"):
        anyio.run(open_model, LAB, name)


def test_a_stored_network_is_read_again_after_its_file_was_replaced(tmp_path):
    """A visitor may classify with a run while it trains."""
    lab = lab_with({"0" * 32: tmp_path})
    model = OptimizerLabModel.from_pretrained(BUNDLED / "quick")
    model.save_pretrained(tmp_path)
    first = open_kept(lab, "0" * 32)
    assert open_kept(lab, "0" * 32) is first
    weights = load((tmp_path / "model.safetensors").read_bytes())
    weights["network.conv1.bias"] += 1
    (tmp_path / "new").write_bytes(save(weights))
    (tmp_path / "new").replace(tmp_path / "model.safetensors")
    again = open_kept(lab, "0" * 32)
    assert torch.equal(again.network.conv1.bias, first.network.conv1.bias + 1)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="safetensors"):
        open_kept(lab, "0" * 32)


def test_a_bundled_network_needs_no_hub(monkeypatch):
    """It opens while the Hub cannot be reached."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    kept = open_kept(LAB, "quick")
    assert torch.equal(anyio.run(open_model, LAB, "quick").network.conv1.bias, kept.network.conv1.bias)


def test_a_private_repo_opens_only_for_its_owner(hub, monkeypatch):
    """What has been opened with the owner's token stays closed to a visitor without one."""
    hub.repos[ID].private = True
    monkeypatch.setattr(checkpoints, "own_token", lambda: "hf_owner_reads")
    open_published(ID, CPU)
    open_run(ID)
    monkeypatch.setattr(checkpoints, "own_token", lambda: None)
    for again in (partial(open_published, ID, CPU), partial(open_run, ID)):
        with pytest.raises(ValueError, match="private"):
            again()


def test_a_hub_thread_knows_its_event():
    """Context variables, such as Gradio's current request, are passed to the thread."""
    from contextvars import ContextVar

    whose = ContextVar("whose")

    async def handle():
        whose.set("a visitor's")
        return await in_hub_thread(partial(whose.get))

    assert anyio.run(handle) == "a visitor's"
