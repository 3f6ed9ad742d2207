"""Publishing through the real huggingface_hub, on a local Hub that fails on request."""

import json
import re
import shutil
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from fake_hub import OWNER, READER, STRANGER, Fault, Repo, point_to
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt
from safetensors.torch import load_file, save
from torchvision.io import write_png

from trainer.cli.main import main
from trainer.hub import retry
from trainer.hub.publish import choose_epochs, publish
from trainer.hub.repositories import list_epochs, list_published, load, open_model, open_run
from trainer.images.image_data import facts
from trainer.learning.checkpoint import continued
from trainer.learning.loop import train
from trainer.networks.model import OptimizerLabModel
from trainer.runs import run_folder
from trainer.runs.events import EpochEnded
from trainer.runs.exports.tensorboard import event_file
from trainer.runs.reader import read_checkpoint, read_run
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.sweeps import folder as sweep_folder
from trainer.sweeps.axes import parse_axis

ID = "owner/run"
PREUPLOAD, COMMIT, TAG, CREATE, PUT = "/preupload/", "/commit/", "/tag/", "/repos/create", "/upload/"


def resume(folder, data, epochs):
    saved = continued(read_checkpoint(folder), epochs=epochs, changes={})
    run = Run(config=saved.config, history=list(saved.history))
    with run_folder.writing(folder):
        for _ in record(train(saved.config, data, resume=saved), run, folder, facts(data)):
            pass


def history_of(files):
    return json.loads(files["training.json"])["history"]


def assert_complete(repo, folder, epochs):
    """Checks that each epoch is one commit, in order, with its tag, weights and history, and nothing else."""
    assert repo.titles == ["initial commit", *(f"Epoch {epoch}" for epoch in epochs)]
    assert list(repo.tags) == [f"epoch-{epoch:04d}" for epoch in epochs]
    assert list(repo.tags.values()) == list(repo.commits)[1:]
    for epoch in epochs:
        files = repo.commits[repo.tags[f"epoch-{epoch:04d}"]]
        assert files["model.safetensors"] == (folder / f"epochs/epoch-{epoch:04d}.safetensors").read_bytes()
        assert [row["epoch"] for row in history_of(files)] == list(range(epoch + 1))
        assert ("training.safetensors" in files) == (epoch == epochs[-1])
        until = read_run(folder)
        until.history = until.history[: epoch + 1]
        assert files["runs/run/events.out.tfevents.0.optimizer-lab"] == event_file(until)
    for name in ("model.safetensors", "training.safetensors", "config.json"):
        assert repo.files[name] == (folder / name).read_bytes()


# --- publishing


@pytest.mark.quick
def test_publish(hub, run):
    """Makes a commit and a tag for each epoch, reports progress from 0 to 1, and returns the page's address."""
    reports = []
    url = publish(run, ID, token=OWNER, progress=lambda fraction, doing: reports.append((fraction, doing)))
    assert url == f"{hub.endpoint}/{ID}"
    repo = hub.repos[ID]
    assert_complete(repo, run, [0, 1, 2, 3])
    assert not repo.private
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert repo.files["training.json"] == (run / "training.json").read_bytes()
    card = ModelCard(repo.files["README.md"].decode())
    assert card.data.eval_results[0].metric_value == history_of(repo.files)[-1]["test_accuracy"]
    assert f'from_pretrained("{ID}")  # revision="epoch-0000": the untrained network' in card.text
    assert "](curve.png)" in card.text
    assert repo.files["curve.png"].startswith(b"\x89PNG")
    for name in ("README.md", "curve.png"):
        assert (run / name).read_bytes() == repo.files[name], "the folder shows the curves too"


def test_the_card_of_a_sweeps_run_shows_the_sweep(hub, run, tmp_path):
    """Its command, and a table of the best settings."""
    data = read_checkpoint(run).data
    axes = (parse_axis("optimizer=sgd,adam"), parse_axis("seed=0,1"))
    sweep = sweep_folder.Sweep(folder=tmp_path / "both", settings={"epochs": 3}, axes=axes, data=data)
    sweep_folder.create(sweep)
    for cell in sweep.grid.cells:
        shutil.copytree(run, sweep.folder_of(cell))
    publish(sweep.folder_of(sweep.grid.cells[2]), ID, token=OWNER)
    card = hub.repos[ID].files["README.md"].decode()
    assert "python -m trainer sweep --vary optimizer=sgd,adam --vary seed=0,1 --epochs 3" in card
    table = MarkdownIt("js-default").render(card.partition("## The sweep")[2].partition("## Settings")[0])
    accuracy = f"{read_run(run).history[-1].test_accuracy:.2%}"
    for name in ("sgd", "adam"):
        assert re.search(f"<td>{name}</td>.*?<td[^>]*>{accuracy} ± 0.00%</td>", table, re.DOTALL)


@pytest.mark.slow
def test_publishing_again_adds_new_epochs(hub, run, tiny, published):
    """Changes nothing if nothing is new, and otherwise adds commits without touching the earlier ones."""
    before = dict(published.tags)
    publish(run, ID, token=OWNER)
    assert not any("/commit/" in request or "/tag/" in request for request in hub.requests)
    resume(run, tiny, 5)
    publish(run, ID, token=OWNER)
    assert before.items() <= published.tags.items()
    assert published.titles == ["initial commit", *(f"Epoch {epoch}" for epoch in range(6))]
    assert published.files["training.safetensors"] == (run / "training.safetensors").read_bytes()
    assert "training.safetensors" not in published.commits[published.tags["epoch-0004"]]


@pytest.mark.parametrize("fault", [None, Fault(method="DELETE", path="/tag/", status=403, times=99)])
def test_excess_tags_are_deleted(hub, long_retries, run, tiny, published, monkeypatch, fault):
    """Deletes old tags after the new epochs are there; a tag that could not be deleted goes the next time, and a tag
    that is not this app's stays."""
    monkeypatch.setattr("trainer.hub.publish.MAX_TAGS", 4)
    published.tags["v1"] = published.head
    resume(run, tiny, 6)
    hub.faults = [Fault(method="DELETE", path="/tag/", how="lose"), *([replace(fault)] if fault else [])]
    publish(run, ID, token=OWNER)
    methods = [request.partition(" ")[0] for request in hub.requests if "/commit/" in request or "/tag/" in request]
    assert methods == sorted(methods, key=lambda method: method == "DELETE")
    hub.faults.clear()
    publish(run, ID, token=OWNER)
    best = Run(config=TrainConfig(), history=read_run(run).history).best.epoch
    assert published.tags.pop("v1")
    assert len(published.tags) == 4
    assert {f"epoch-{epoch:04d}" for epoch in (0, best, 6)} <= published.tags.keys()
    assert published.titles == ["initial commit", *dict.fromkeys(published.titles[1:])]
    assert published.files["model.safetensors"] == (run / "model.safetensors").read_bytes()


def test_a_run_in_training_is_published_up_to_its_last_epoch(hub, run):
    """Publishes the last complete epoch, and leaves the locked folder alone."""
    card = (run / "README.md").read_bytes()
    with run_folder.writing(run):
        publish(run, ID, token=OWNER)
    assert_complete(hub.repos[ID], run, [0, 1, 2, 3])
    assert (run / "README.md").read_bytes() == card


def test_a_loaded_run_is_resumed_and_published(hub, run, tiny, published, tmp_path):
    """Loading, resuming and publishing gives the same run as resuming the original folder."""
    there = tmp_path / "there"
    assert load(ID, there) is True
    resume(there, tiny, 4)
    resume(run, tiny, 4)
    assert (there / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    publish(there, ID, token=OWNER)
    assert list(published.tags) == [f"epoch-{epoch:04d}" for epoch in range(5)]


@pytest.mark.parametrize("until", [3, 5])
def test_no_card_has_instructions_for_a_continued_run(until, hub, run, tiny, trained):
    """A run continued with other settings cannot be trained again by one command, even before its first new epoch."""
    again = "## Train it again"
    publish(run, "owner/before", token=OWNER)
    assert again in hub.repos["owner/before"].files["README.md"].decode()
    saved = continued(read_checkpoint(run), epochs=5, changes={"lr": 0.001})
    trained(saved.config, tiny, folder=run, resume=saved, until=until)
    publish(run, ID, token=OWNER)
    repo = hub.repos[ID]
    assert len(repo.tags) == until + 1
    assert not any(again in repo.commits[commit]["README.md"].decode() for commit in repo.tags.values())


def test_a_loaded_run_is_published_with_its_last_epoch_only(hub, published, tmp_path):
    """Loading brings only the last epoch, so the new repo and its card name no other."""
    load(ID, tmp_path / "there")
    publish(tmp_path / "there", "owner/again", token=OWNER)
    repo = hub.repos["owner/again"]
    assert list(repo.tags) == ["epoch-0003"]
    assert "epoch-0000" not in repo.files["README.md"].decode()


def test_private(hub, run):
    """Only the owner sees a private repo, and a private run is not published to a public one."""
    publish(run, ID, token=OWNER, private=True)
    assert hub.repos[ID].private
    publish(run, ID, token=OWNER)
    assert hub.repos[ID].private
    assert isinstance(open_model(ID, token=OWNER), OptimizerLabModel)
    for token in (None, STRANGER):
        for open_part in (open_model, open_run, list_epochs):
            with pytest.raises(ValueError, match=r"^There is no owner/run on the Hub, or it is private"):
                open_part(ID, token=token)
    assert list_published(token=STRANGER) == []
    assert [row.repo_id for row in list_published(token=OWNER)] == [ID]
    hub.repos["owner/open"] = Repo()
    hub.repos["owner/open"].add({}, "initial commit")
    with pytest.raises(ValueError, match="is public already"):
        publish(run, "owner/open", token=OWNER, private=True)
    assert hub.repos["owner/open"].titles == ["initial commit"]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"train.py": b""}, "something other"),
        ({"model.safetensors": b"x"}, "something other"),
        ({"config.json": b"{}", "model.safetensors": b"x", "README.md": b"# BERT"}, "something other"),
        ({"README.md": b"---\nlicense: mit\n---\n\n# What I plan\n"}, "something other"),
        ({"README.md": b"My own words"}, "something other"),
        ({"training.json": b"[]"}, "something other"),
        ({"training.json": b"{"}, "something other"),
        ({"training.json": b'{"format": 1, "data": {"digest": "other"}, "history": [{}]}'}, "another run"),
    ],
)
def test_a_repo_with_other_content_is_left_alone(hub, run, files, sentence):
    """Refuses and changes nothing."""
    repo = hub.repos[ID] = Repo()
    repo.add(files, "theirs")
    with pytest.raises(ValueError, match=rf"^owner/run contains {sentence}.*\.$"):
        publish(run, ID, token=OWNER)
    assert (repo.titles, repo.files, repo.tags) == (["theirs"], files, {})


def test_an_older_copy_removes_no_epochs(hub, run, tiny, three_epochs, published):
    """Refuses a folder with fewer epochs than the repo."""
    resume(run, tiny, 4)
    publish(run, ID, token=OWNER)
    with pytest.raises(ValueError, match="already has 4 epochs of this run"):
        publish(three_epochs, ID, token=OWNER)
    assert len(history_of(published.files)) == 5


def test_the_path_of_the_pictures_is_not_published(hub, run):
    """A path may contain the user's name; the run is valid without it."""
    path = run / "training.json"
    content = json.loads(path.read_text())
    content["data"]["source"] = "/home/someone/pictures"
    path.write_text(json.dumps(content))
    publish(run, ID, token=OWNER)
    assert not any(b"someone" in content for files in hub.repos[ID].commits.values() for content in files.values())
    assert json.loads(hub.repos[ID].files["training.json"])["data"]["source"] is None


@pytest.mark.parametrize("epochs", [0, 1, 3, 18, 19, 20, 21, 47, 300])
def test_epochs_to_publish(epochs):
    """Chooses at most 20 epochs, evenly spaced, with the first, the best and the last."""
    best = epochs * 2 // 3
    run, saved = run_of(epochs, best), set(range(epochs + 1))
    chosen = choose_epochs(run, set(), saved)
    assert len(chosen) == min(20, epochs + 1)
    assert {0, best, epochs} <= set(chosen)
    assert all(after - before <= 2 * (epochs // 17 + 1) for before, after in pairwise(chosen))
    for count in range(len(chosen) + 1):
        assert choose_epochs(run, set(chosen[:count]), saved) == chosen, "an interrupted publishing is completed"
    assert choose_epochs(run, set(), {epochs}) == [epochs]


@pytest.mark.parametrize("more", [1, 2, 5, 20, 500])
def test_epochs_to_publish_again(more):
    """Chooses among the published and the new epochs, at most 20, and adds none between the published ones."""
    old = set(choose_epochs(run_of(30, 20), set(), set(range(31))))
    chosen = choose_epochs(run_of(30 + more, 30 + more // 2), old, set(range(31 + more)))
    assert len(chosen) == 20
    assert {0, 30 + more // 2, 30 + more} <= set(chosen)
    assert {epoch for epoch in chosen if epoch <= 30} <= old
    assert all(after - before <= 2 * ((30 + more) // 17 + 1) for before, after in pairwise(chosen))
    assert choose_epochs(run_of(30 + more, 30 + more // 2), set(chosen), set(range(31 + more))) == chosen


def run_of(epochs, best):
    return Run(
        config=TrainConfig(), history=[row(n, 0.9 if n == best else n / (2 * epochs + 1)) for n in range(epochs + 1)]
    )


def row(epoch, accuracy):
    nothing = dict.fromkeys(("train_loss", "train_loss_sum", "lr", "grad_norm", "images_per_second"))
    return EpochEnded(epoch=epoch, test_loss=1.0, test_accuracy=accuracy, seconds=1.0, **nothing)


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("", "log in"),
        ("hf_nobody", "does not accept the token"),
        (
            "hf_née",
            r"^The token is malformed: it contains a space, a line break or a character that no token has\.$",
        ),
        ("hf_a b", "malformed"),
        (f"{OWNER}\n", "malformed"),
        (READER, "no permission"),
        (STRANGER, "no permission"),
    ],
)
def test_publishing_without_permission_is_refused(hub, run, token, sentence):
    """No token, an invalid one, a read-only one and a stranger's each give one sentence, and no repo is created."""
    with pytest.raises(ValueError, match=sentence):
        publish(run, ID, token=token)
    assert hub.repos == {}


@pytest.mark.parametrize("token", [READER, STRANGER])
def test_only_the_owner_changes_a_public_repo(hub, run, tiny, published, token):
    """Other tokens are refused, and the repo is unchanged."""
    resume(run, tiny, 4)
    with pytest.raises(ValueError, match="no permission"):
        publish(run, ID, token=token)
    assert list(published.tags) == [f"epoch-{epoch:04d}" for epoch in range(4)]


def test_a_damaged_run_is_not_published(hub, run):
    """Weights that are not finite, or missing, are refused before anything is uploaded."""
    path = run / "epochs" / "epoch-0001.safetensors"
    tensors = load_file(path)
    path.write_bytes(save({name: tensor * float("nan") for name, tensor in tensors.items()}))
    with pytest.raises(ValueError, match="not finite"):
        publish(run, ID, token=OWNER)
    (run / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="do not match each other"):
        publish(run, "owner/other", token=OWNER)
    assert "owner/other" not in hub.repos


# --- faults while publishing

PASSING = {
    "the repo's refs are in trouble": Fault(method="GET", path="/refs", status=503),
    "creation in trouble": Fault(method="POST", path=CREATE, status=500),
    "the answer to the creation is lost": Fault(method="POST", path=CREATE, how="lose"),
    "a commit in trouble, three times": Fault(method="POST", path=COMMIT, status=503, times=3),
    "a conflict": Fault(method="POST", path=COMMIT, status=409, error="Conflict"),
    "the answers to all commits are lost": Fault(method="POST", path=COMMIT, how="lose", times=2),
    "the answer to a commit is cut": Fault(method="POST", path=COMMIT, how="cut"),
    "a tag in trouble": Fault(method="POST", path=TAG, status=502),
    "the answer to a tag is lost": Fault(method="POST", path=TAG, how="lose"),
    "validation in trouble": Fault(method="POST", path="validate-yaml", status=503),
    "preparing an upload is cut": Fault(method="POST", path=PREUPLOAD, how="cut"),
    "an upload in trouble": Fault(method="PUT", path=PUT, status=500),
    "the answer to an upload is lost": Fault(method="PUT", path=PUT, how="lose"),
}


@pytest.mark.parametrize("case", PASSING)
def test_transient_errors_do_not_change_the_result(hub, long_retries, one_epoch, case):
    """Errors that pass and lost answers give the same repo as without them, with no commit twice."""
    hub.faults = [fault := replace(PASSING[case])]
    publish(one_epoch, ID, token=OWNER)
    assert fault.times == 0
    assert_complete(hub.repos[ID], one_epoch, [0, 1])


def test_a_new_repo_from_the_hubs_form_is_accepted(hub, one_epoch):
    """It contains only front matter with the chosen licence."""
    hub.repos[ID] = Repo(created_with=OWNER)
    hub.repos[ID].add({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
    hub.repos[ID].add({".gitattributes": b"", "README.md": b"---\nlicense: mit\n---\n"}, "Upload README.md")
    publish(one_epoch, ID, token=OWNER)
    assert "training.json" in hub.repos[ID].files


def test_a_hub_whose_page_urls_have_another_host(hub, one_epoch):
    """The client cannot parse the URL in the answer, but the commit was made, and is not made again."""
    hub.pages = "http://internal.example"
    publish(one_epoch, ID, token=OWNER)
    assert_complete(hub.repos[ID], one_epoch, [0, 1])


def test_retry_after_is_respected(hub, one_epoch):
    """Waits as long as the Hub asks for, and reports it."""
    hub.faults = [Fault(method="POST", path=COMMIT, status=429, headers={"Retry-After": "1"})]
    reports = []
    publish(one_epoch, ID, token=OWNER, progress=lambda fraction, doing: reports.append(doing))
    assert_complete(hub.repos[ID], one_epoch, [0, 1])
    times = [at for at, request in zip(hub.times, hub.requests, strict=True) if COMMIT in request]
    assert times[1] - times[0] >= 1
    assert any("Retrying in 1 s" in doing for doing in reports)


@pytest.mark.parametrize(("method", "path"), [("POST", PREUPLOAD), ("GET", "/tree/"), ("GET", "/refs")])
def test_every_wait_is_reported(hub, one_epoch, method, path):
    """Requests that the client would silently retry itself are reported too; a second is waited, an hour is not."""
    hub.faults = [Fault(method=method, path=path, status=429, headers={"Retry-After": "1"})]
    reports = []
    publish(one_epoch, ID, token=OWNER, progress=lambda fraction, doing: reports.append(doing))
    assert any("Retrying in 1 s" in doing for doing in reports)
    assert_complete(hub.repos[ID], one_epoch, [0, 1])
    hub.faults = [Fault(method=method, path=path, status=429, headers={"Retry-After": "3600"})]
    hub.repos.pop(ID)
    began = time.monotonic()
    with pytest.raises(ValueError, match="try again in 60 minutes"):
        publish(one_epoch, ID, token=OWNER)
    assert time.monotonic() - began < 10


def test_a_wait_that_is_too_long_is_an_error(hub, one_epoch):
    """An hour is not waited; publishing again adds the rest."""
    hub.faults = [Fault(method="POST", path=TAG, times=0)]
    hub.faults += [Fault(method="POST", path=f"{COMMIT}main", status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(ValueError, match="try again in 60 minutes"):
        publish(one_epoch, ID, token=OWNER)
    assert hub.repos[ID].titles == ["initial commit"]
    publish(one_epoch, ID, token=OWNER)
    assert_complete(hub.repos[ID], one_epoch, [0, 1])


LASTING = {
    "gone": (
        Fault(method="POST", path=COMMIT, status=404, headers={"X-Error-Code": "RepoNotFound"}, times=99),
        "no owner/run on the Hub",
    ),
    "refused": (Fault(method="POST", path=COMMIT, status=400, error=f"No {OWNER} here", times=99), "No … here"),
    "conflict": (Fault(method="POST", path=COMMIT, status=409, times=99), "being changed by someone else"),
    "trouble": (Fault(method="POST", path=COMMIT, status=500, times=99), "has a problem"),
    "tags": (Fault(method="POST", path=TAG, status=503, times=99), "has a problem"),
    "quota": (Fault(method="POST", path=CREATE, status=402, error="Payment required", times=99), "Payment required"),
}


@pytest.mark.parametrize("case", LASTING)
def test_a_lasting_error_is_one_sentence_and_publishing_again_completes(hub, one_epoch, case):
    """The repo contains only complete epochs after the error, and each epoch once after the next attempt."""
    fault, sentence = LASTING[case]
    hub.faults = [Fault(**vars(fault))]
    with pytest.raises(ValueError, match=sentence) as error:
        publish(one_epoch, ID, token=OWNER)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith((".", ")."))
    if ID in hub.repos:
        assert hub.repos[ID].titles in (["initial commit"], ["initial commit", "Epoch 0"])
    hub.faults.clear()
    publish(one_epoch, ID, token=OWNER)
    assert_complete(hub.repos[ID], one_epoch, [0, 1])


def test_another_commit_in_between_is_kept(hub, run, published, tiny, monkeypatch):
    """Main has moved since it was read: the other commit stays, and no commit is made on top."""
    resume(run, tiny, 4)
    from trainer.hub import publish as module

    look = module._Publisher._read_repo

    def look_then_change(self):
        found = look(self)
        if "theirs" not in published.titles:
            published.add({**published.files, "notes.txt": b""}, "theirs")
        return found

    monkeypatch.setattr(module._Publisher, "_read_repo", look_then_change)
    with pytest.raises(ValueError, match="changed by someone else meanwhile"):
        publish(run, ID, token=OWNER)
    assert published.titles[-1] == "theirs"


def test_a_timeout_after_a_commit(hub, one_epoch, monkeypatch):
    """The error says that the outcome is unknown; publishing again finds out."""
    monkeypatch.setattr(retry, "TIMEOUT_SECONDS", 0.5)
    hub.faults = [
        Fault(method="POST", path=f"{COMMIT}main", how="lose"),
        Fault(method="GET", path="/refs", times=0),
    ]

    def silence_after_the_commit(fraction, doing):
        if any(COMMIT in request for request in hub.requests):
            hub.faults[1].how, hub.faults[1].seconds, hub.faults[1].times = "hold", 2.0, 1

    with pytest.raises(ValueError, match="it is not known whether epoch 0 has arrived"):
        publish(one_epoch, ID, token=OWNER, progress=silence_after_the_commit)
    monkeypatch.undo()
    point_to(hub.endpoint, monkeypatch, Path(constants.HF_HUB_CACHE))
    hub.faults.clear()
    publish(one_epoch, ID, token=OWNER)
    assert_complete(hub.repos[ID], one_epoch, [0, 1])


def test_progress_may_raise_to_stop(hub, one_epoch):
    """Publishing stops between two commits, and publishing again adds the rest."""

    class StopError(Exception):
        pass

    def stop(fraction, doing):
        if "epoch 1" in doing:
            raise StopError

    with pytest.raises(StopError):
        publish(one_epoch, ID, token=OWNER, progress=stop)
    publish(one_epoch, ID, token=OWNER)
    assert_complete(hub.repos[ID], one_epoch, [0, 1])


# --- the command line


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", OWNER)


def test_commands(hub, run, logged_in, tmp_path, capfd, monkeypatch):
    """`publish` prints the link; `load` and `classify` take a revision."""
    monkeypatch.setenv("OPTIMIZER_LAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    assert main(["publish", str(run), ID, "--private"]) == 0
    assert tuple(capfd.readouterr()) == (f"{hub.endpoint}/{ID}\n", "")
    assert_complete(hub.repos[ID], run, [0, 1, 2, 3])
    assert hub.repos[ID].private
    assert main(["load", ID]) == 0
    output = capfd.readouterr()
    assert f"resume {tmp_path / 'checkpoints' / 'run'}" in output.out
    assert output.err == ""
    assert main(["load", f"{ID}@epoch-0001", str(tmp_path / "early")]) == 0
    assert f"classify {tmp_path / 'early'} PICTURE" in capfd.readouterr().out
    picture = tmp_path / "picture.png"
    write_png(torch.zeros(3, 8, 8, dtype=torch.uint8), str(picture))
    outputs = []
    for place in (f"{ID}@epoch-0001", tmp_path / "early"):
        assert main(["classify", str(place), str(picture), "--json"]) == 0
        outputs.append(capfd.readouterr())
    assert outputs[0] == outputs[1]


def test_mistakes_on_the_command_line(hub, run, logged_in, tmp_path, capfd, monkeypatch):
    """Each mistake is one line on stderr and exit status 2."""
    hub.faults = [Fault(method="POST", path=COMMIT, status=503, times=99)]
    for arguments, sentence in (
        (["publish", str(tmp_path / "nothing"), ID], "There is no run in"),
        (["publish", str(run), "run"], "not the name of a repo"),
        (["publish", str(run), ID], "has a problem"),
        (["load", "owner/nothing"], "There is no owner/nothing"),
        (["load", f"{ID}@v9", str(tmp_path / "new")], "has no such revision"),
        (["classify", "owner/nothing", "x.png"], "There is no owner/nothing"),
        (["classify", f"{ID}@", "x.png"], "not a revision"),
    ):
        assert main(arguments) == 2
        output = capfd.readouterr()
        assert output.out == ""
        assert "hf_" not in output.err
        assert output.err.count("\n") == 1
        assert sentence in output.err
    monkeypatch.delenv("HF_TOKEN")
    assert main(["publish", str(run), ID]) == 2
    assert "hf auth login" in capfd.readouterr().err
