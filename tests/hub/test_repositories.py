"""Opening, loading and listing runs through the real huggingface_hub, on a local Hub that fails on request."""

import json
import shutil
import threading
import time
from contextlib import suppress

import pytest
import torch
from fake_hub import OWNER, STRANGER, Fault, Repo, point_to, silent_server
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save

from trainer.errors import UserError
from trainer.hub import retry
from trainer.hub.publish import publish
from trainer.hub.repositories import (
    check_repo_id,
    list_epochs,
    list_published,
    load,
    open_model,
    open_run,
    split_revision,
    user_name,
)
from trainer.networks.model import OptimizerLabModel
from trainer.progress import THREAD_NAME
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint, read_run, read_settings

ID = "owner/run"
PICTURE = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)


def test_names():
    """Accepts owner/name and owner/name@revision only."""
    assert split_revision("a/b") == ("a/b", None)
    assert split_revision("a/b@epoch-0003") == ("a/b", "epoch-0003")
    assert check_repo_id("a-b/c.d_e") == "a-b/c.d_e"
    for wrong in ("", "a", "a/b/c", "/a", "a/", "../a", "a/..", "a b/c", "a/b.git", "a/b--c", "<b>/x", "a/b\n"):
        with pytest.raises(ValueError, match="not the name of a repo"):
            check_repo_id(wrong)
    assert split_revision("a/b@refs/pr/1") == ("a/b", "refs/pr/1")
    for wrong in (
        "",
        "x y",
        "x@y",
        "x\n",
        "../../x",
        "a//b",
        "/a",
        "a/",
        ".a",
        "a..b",
        "a.",
        "a.lock",
        "-a",
        "a" * 251,
    ):
        with pytest.raises(ValueError, match="not a revision"):
            split_revision(f"a/b@{wrong}")


def test_user_name(hub):
    """Returns the account's name, None if the Hub does not answer, and raises for an invalid token."""
    assert user_name(OWNER) == "owner"
    hub.faults = [Fault(method="GET", path="whoami", status=429, times=99)]
    assert user_name(OWNER) is None
    hub.faults.clear()
    for token in ("hf_nobody", "hf_née"):
        with pytest.raises(ValueError, match=r"^The (Hub does not accept the token|token is malformed)"):
            user_name(token)


@pytest.mark.slow
def test_no_network(one_epoch, short_waits, monkeypatch, tmp_path):
    """Without a connection, and without an answer, every function raises one sentence soon."""
    point_to("http://127.0.0.1:9", monkeypatch, tmp_path / "cache")
    calls = [
        lambda: publish(one_epoch, ID, token=OWNER),
        lambda: load(ID, tmp_path / "new"),
        lambda: open_model(ID),
        lambda: list_published(),
        lambda: list_epochs(ID),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^The Hub cannot be reached; try again later\.$"):
            call()
    monkeypatch.setattr(retry, "TIMEOUT_SECONDS", 0.3)
    with silent_server() as silence:
        point_to(silence, monkeypatch, tmp_path / "cache")
        for call in calls:
            began = time.monotonic()
            with pytest.raises(ValueError, match=r"^The Hub has not answered for 0\.3 seconds; try again later\.$"):
                call()
            assert time.monotonic() - began < 5
    assert not (tmp_path / "new").exists()
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(timeout=10)


# --- loading


@pytest.mark.quick
def test_load(hub, run, published, tmp_path):
    """The last epoch can be resumed; an earlier one can only be classified with."""
    assert load(ID, tmp_path / "last") is True
    for name in ("config.json", "model.safetensors", "training.json", "training.safetensors"):
        assert (tmp_path / "last" / name).read_bytes() == (run / name).read_bytes()
    assert read_checkpoint(tmp_path / "last").epoch == 3
    assert load(ID, tmp_path / "second", revision="epoch-0001") is False
    assert read_run(tmp_path / "second").epoch == 1
    with pytest.raises(ValueError, match="only its last epoch can be resumed"):
        read_checkpoint(tmp_path / "second")
    with pytest.raises(ValueError, match="already"):
        load(ID, tmp_path / "last")


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("/root/.ssh", None),
        ("~", None),
        ("/dev/zero", None),
        ("owner/name", None),  # may be a folder here
        ("owner/name@main", None),
        (f"owner/name@{'a' * 40}", True),
        ("synthetic", True),
        (None, None),
    ],
)
def test_a_path_in_a_strangers_run_is_not_opened(hub, published, tmp_path, source, kept):
    """Only a name of a picture set remains its source."""
    content = json.loads(published.files["training.json"])
    content["data"]["source"] = source
    changed(published, training__json=json.dumps(content).encode())
    load(ID, tmp_path / "new")
    assert read_settings(tmp_path / "new")[1]["source"] == (source if kept else None)


@pytest.mark.parametrize("name", ["README.md", "config.json", "curve.png"])
def test_load_overwrites_nothing(name, hub, published, tmp_path):
    """A folder that has a file of the same name is refused before any request, and is unchanged."""
    (tmp_path / name).write_text("mine")
    hub.requests.clear()
    with pytest.raises(ValueError, match=rf"already contains a file {name};"):
        load(ID, tmp_path)
    with pytest.raises(ValueError, match=rf"already contains a file {name};"):
        run_folder.create(tmp_path, {name: b"theirs"})
    assert hub.requests == []
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("place", ["x" * 300, "file/in", "loop"])
def test_load_into_a_folder_that_cannot_be(place, hub, published, tmp_path):
    """It is refused before any request."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    hub.requests.clear()
    with pytest.raises(UserError, match="cannot be written: "):
        load(ID, tmp_path / place)
    assert hub.requests == []


@pytest.mark.quick
def test_from_pretrained(hub, run, published):
    """Opens the epoch that the revision names, from the folder and from the Hub, and downloads each file once."""
    for epoch in (0, 2):
        model = OptimizerLabModel.from_pretrained(ID, revision=f"epoch-{epoch:04d}")
        wanted = load_file(run / f"epochs/epoch-{epoch:04d}.safetensors")
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    hub.requests.clear()
    open_model(ID, "epoch-0002")
    assert not any(request.startswith("GET") and "/resolve/" in request for request in hub.requests)
    here = OptimizerLabModel.from_pretrained(run).probabilities(PICTURE)
    assert torch.equal(OptimizerLabModel.from_pretrained(ID).probabilities(PICTURE), here)
    assert open_run(ID, "epoch-0002").epoch == 2
    assert list_epochs(ID) == {epoch: f"epoch-{epoch:04d}" for epoch in range(4)}


def damage(cache, name):
    """Changes the file's content in the cache, but neither its name nor its size."""
    (path,) = {path.resolve() for path in cache.rglob(name)}
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(255 - byte for byte in content[-8:]))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("call", [open_model, OptimizerLabModel.from_pretrained])
def test_a_damaged_cache_is_downloaded_again(hub, published, tmp_path, name, call):
    """Uses the Hub's content although the cache has been damaged on this disk."""
    wanted = call(ID).probabilities(PICTURE)
    damage(tmp_path / "cache", name)
    hub.requests.clear()
    assert torch.equal(call(ID).probabilities(PICTURE), wanted)
    assert sum(request.startswith("GET") and request.endswith(name) for request in hub.requests) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "training.json", "training.safetensors"])
def test_a_damaged_download(hub, published, tmp_path, name):
    """Is repeated once; if it is damaged again it is refused, and nothing is left of it."""
    hub.faults = [Fault(method="GET", path=f"/resolve/.*/{name}", how="garble")]
    assert load(ID, tmp_path / "once") is True
    shutil.rmtree(tmp_path / "cache")
    hub.faults = [Fault(method="GET", path=f"/resolve/.*/{name}", how="garble", times=99)]
    with pytest.raises(ValueError, match=rf"^{name} of owner/run was damaged after two downloads"):
        load(ID, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    assert hub.faults[0].times == 97


def test_an_interrupted_download_continues(hub, long_retries, published, tmp_path):
    """Only the missing part is downloaded."""
    hub.faults = [Fault(method="GET", path=r"/resolve/.*/model\.safetensors", how="cut")]
    assert load(ID, tmp_path / "new") is True
    assert read_checkpoint(tmp_path / "new").epoch == 3


def test_gated(hub, published, tmp_path):
    """The error says whom to ask for access."""
    published.gated = True
    with pytest.raises(ValueError, match=r"^owner/run is gated: ask its owner for access"):
        load(ID, tmp_path / "new", token=STRANGER)
    assert load(ID, tmp_path / "new", token=OWNER) is True


def test_what_does_not_exist(hub, published, tmp_path):
    """No such repo, revision or checkpoint, and invalid names, each give one sentence."""
    for repo_id, revision, sentence in (
        ("owner/nothing", None, "There is no owner/nothing on the Hub, or it is private"),
        (ID, "epoch-0009", "owner/run has no such revision"),
        ("nothing", None, "is not the name of a repo"),
        ("a/../b", None, "is not the name of a repo"),
        ("owner/" + "x" * 200, None, "is not the name of a repo"),
    ):
        with pytest.raises(ValueError, match=sentence):
            load(repo_id, tmp_path / "new", revision=revision)
    hub.repos["owner/bert"] = Repo()
    hub.repos["owner/bert"].add({"pytorch_model.bin": b"\x80\x04."}, "theirs")
    with pytest.raises(ValueError, match="contains no checkpoint of this app"):
        load("owner/bert", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def changed(published, **files):
    published.add({**published.files, **{name.replace("__", "."): content for name, content in files.items()}}, "evil")


def evil_weights(published, change):
    tensors = load_bytes(published.files["model.safetensors"])
    change(tensors)
    return save(tensors)


HOSTILE = {
    "only a pickle": lambda repo: repo.add(
        {"config.json": repo.files["config.json"], "pytorch_model.bin": b"\x80\x04."}, "evil"
    ),
    "a huge config": lambda repo: changed(repo, config__json=b'{"a": "' + b"x" * (2 << 20) + b'"}'),
    "a config that is none": lambda repo: changed(repo, config__json=b"[]"),
    "a huge image": lambda repo: changed(repo, config__json=b'{"class_names": ["a", "b"], "image_size": 1000000}'),
    "one name twice": lambda repo: changed(repo, config__json=b'{"class_names": ["a", "a"]}'),
    "huge weights": lambda repo: changed(repo, model__safetensors=bytes(64 << 20)),
    "a tensor missing": lambda repo: changed(
        repo, model__safetensors=evil_weights(repo, lambda tensors: tensors.pop("network.conv1.bias"))
    ),
    "weights that are not finite": lambda repo: changed(
        repo,
        model__safetensors=evil_weights(
            repo, lambda tensors: tensors.update({"network.conv1.bias": torch.full((32,), float("nan"))})
        ),
    ),
    "another run's optimizer": lambda repo: changed(repo, training__safetensors=save({"a": torch.zeros(1)})),
    "a history that is none": lambda repo: changed(repo, training__json=b"{}"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_repo_is_refused(hub, published, tmp_path, monkeypatch, case):
    """Refuses at once, with one sentence, and leaves no file behind."""
    HOSTILE[case](published)
    # Counted in processor time and in waits, which other processes do not lengthen.
    monkeypatch.setattr(retry, "wait", lambda *_: pytest.fail("A refusal is waited for."))
    began = time.process_time()
    with pytest.raises(ValueError, match=r"\.$") as error:
        load(ID, tmp_path / "new")
    assert time.process_time() - began < 1.5
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
    if "huge" in case:
        assert not any("GET" in request and request.endswith("model.safetensors") for request in hub.requests)


# --- the gallery


def card(**front):
    return {"README.md": f"---\n{json.dumps({'tags': ['optimizer-lab'], **front})}\n---\n".encode()}


def result(value, name="CIFAR-10"):
    found = {"dataset": {"name": name, "type": "x"}, "metrics": [{"type": "accuracy", "value": value}]}
    return [{"name": "x", "results": [{"task": {"type": "image-classification"}, **found}]}]


@pytest.mark.quick
def test_gallery(hub, published):
    """Lists the newest first, or the highest claim first, with settings and data set."""
    published.updated = "2026-03-01T00:00:00.000Z"
    for number, (value, updated) in enumerate([(0.5, "2026-02-01"), (0.99, "2026-01-02"), (78.3, "2026-04-01")]):
        repo = hub.repos[f"stranger/run{number}"] = Repo(updated=updated)
        repo.add(card(**{"model-index": result(value)}), "initial commit")
    hub.repos["stranger/bert"] = Repo()
    hub.repos["stranger/bert"].add({"README.md": b"---\ntags: [bert]\n---\n"}, "initial commit")
    hub.page_size = 2
    rows = list_published()
    assert [row.repo_id for row in rows] == ["stranger/run2", ID, "stranger/run0", "stranger/run1"]
    assert list_published(best=True)[0].repo_id == "stranger/run1"
    ours = rows[1]
    assert ours.accuracy == json.loads(published.files["training.json"])["history"][-1]["test_accuracy"]
    assert ours.settings == {"optimizer": "adam", "lr": "0.003", "scheduler": "constant", "epochs": "3"}
    assert (rows[0].accuracy, rows[2].accuracy, rows[2].data) == (None, 0.5, "CIFAR-10")
    assert len(list_published(limit=1)) == 1


def test_an_empty_gallery(hub):
    """Has no rows and raises no error."""
    assert list_published() == []


WEIRD = (
    [{"model-index": value} for value in ("x", 3, [], [1], [{}], [{"results": 1}], [{"results": [{"metrics": 2}]}])]
    + [{"model-index": result(value)} for value in ("0.9", None, True, -1, float("nan"), [1], 10**400)]
    + [{"optimizer_lab": value} for value in ("x", [1], {"optimizer": ["a"]}, {"lr": {"a": 1}}, {1: 2})]
    + [
        {"ignore_metadata_errors": True},
        {"self": 1},
        {"language": {"a": 1}},
        {"optimizer_lab": {"optimizer": "a\u202eb\n\x1b[31m" + "x" * 1000}},
    ]
)


def test_a_malformed_card_does_not_break_the_gallery(hub, published):
    """The other checkpoints are listed, and of a malformed card only the valid parts."""
    for number, front in enumerate(WEIRD):
        repo = hub.repos[f"stranger/run{number}"] = Repo()
        with suppress(ValueError):
            repo.add(card(**front), "initial commit")
    rows = list_published()
    assert {row.repo_id for row in rows} == {ID, *(f"stranger/run{number}" for number in range(len(WEIRD)))}
    for row in rows:
        assert row.accuracy is None or 0 <= row.accuracy <= 1
        assert all(len(text) <= 100 and text.isprintable() for text in row.settings.values())
