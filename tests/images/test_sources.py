"""The sources of image sets: the Hub, torchvision, and auto, which chooses one."""

import functools
import hashlib
import http.server
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from fake_hub import Hub, Repo, point_to, serve, silent_server
from image_sets import jpeg, noise, png, write_dataset
from torchvision.datasets import CIFAR10

from trainer.errors import UserError
from trainer.images import readers, sources
from trainer.images.image_data import load_images
from trainer.progress import ignore_progress

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unreachable(monkeypatch):
    """The Hub is offline, and torchvision's server refuses connections."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")


@contextmanager
def serve_folder(folder: Path):
    """Serves a folder's files over HTTP; yields the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("cifar", "no image source 'cifar'"),
        ("./nowhere", "no folder './nowhere'"),
        ("/nowhere/at/all", "no folder '/nowhere/at/all'"),
        ("\0", "no image source"),
        ("x" * 5000, "no image source"),
        (__file__, "is a file"),
        ("someone/something", "no folder someone/something here, and the Hub was not contacted"),
    ],
)
def test_unknown_sources_are_refused(address, complaint, unreachable):
    """Any text that is not a source gives an error of one sentence."""
    with pytest.raises(ValueError, match=complaint) as raised:
        load_images(address)
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


_LOADER = """
import json, sys
from trainer.images import image_data
for address in sys.argv[1:]:
    try:
        loaded = image_data.load_images(None if address == "-" else address)
        result = {**image_data.facts(loaded), "note": loaded.note, "num": len(loaded.train.labels)}
    except ValueError as error:
        result = {"error": str(error)}
    print(json.dumps(result))
"""


def load_in_process(endpoint: str, home: Path, *addresses: str) -> list[dict]:
    """Loads each address (-: none) in a new process, which must not write to stderr; returns facts and errors.

    huggingface_hub and datasets read HF_ENDPOINT when they are imported, hence the process.
    """
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment = {name: value for name, value in environment.items() if name != "HF_HUB_OFFLINE"}
    completed = subprocess.run(
        [sys.executable, "-c", _LOADER, *addresses],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.stderr == ""
    return [json.loads(line) for line in completed.stdout.splitlines()]


@pytest.mark.slow
def test_hub(tmp_path):
    """Data sets are loaded from the Hub with the right name and commit; errors say what is missing.

    Loading one again, by its commit or by auto, sends no request.
    """
    pngs = [png(picture) for picture in noise(10)]
    jpegs = [jpeg(picture) for picture in noise(10)]
    ten = {"class_names": readers.CIFAR10_CLASSES}
    cifar10 = write_dataset(tmp_path / "cifar10", {"train": jpegs, "test": jpegs}, **ten)
    similar = write_dataset(tmp_path / "similar", {"train": pngs[:4], "test": pngs}, **ten)
    damaged = write_dataset(tmp_path / "damaged", {"train": pngs, "test": pngs})
    table = damaged / "plain_text" / "train-00000-of-00001.parquet"
    table.write_bytes(table.read_bytes()[:-20])
    repos = {
        "datasets/uoft-cs/cifar10": Repo.of(cifar10, commit=sources.CIFAR10_REVISION),
        "datasets/someone/similar": Repo.of(similar, commit="a" * 40),
        "datasets/someone/damaged": Repo.of(damaged, commit="c" * 40),
    }
    with serve(Hub(repos=repos)) as hub:
        default, newest, by_branch, *failed, by_commit, auto = load_in_process(
            hub.endpoint,
            tmp_path / "home",
            "hub",
            "someone/similar",
            "someone/similar@main",
            "someone/similar@v2",
            "someone/damaged",
            "someone/nothing",
            "someone/similar@" + "a" * 40,
            "-",
        )
    assert (default["name"], default["source"]) == ("CIFAR-10 (JPEG)", "hub")
    assert default["revision"] == sources.CIFAR10_REVISION
    assert default["note"] == "Training on CIFAR-10 (JPEG) from the Hub, 10 training and 10 test images."
    assert (newest["name"], newest["source"], newest["num"]) == ("someone/similar", "someone/similar@" + "a" * 40, 4)
    assert by_branch["digest"] == by_commit["digest"] == newest["digest"]
    assert failed.pop(1)["error"].startswith("The dataset someone/damaged cannot be read (")
    assert [answer["error"] for answer in failed] == [
        "There is no folder someone/similar here, and the Hub's dataset someone/similar has no revision v2.",
        "There is no folder someone/nothing here, and the Hub has no dataset someone/nothing, or it is private.",
    ]
    assert auto["note"].endswith("10 training and 10 test images: it was downloaded earlier.")
    assert hub.requests[-1].endswith("/someone/nothing")


@pytest.mark.slow
def test_configurations_of_a_dataset(tmp_path):
    """Without one, or with one that does not exist, the error lists whole names; they may have spaces."""
    names = ["in the wild", *(f"{'long' * 10}-{number}" for number in range(11))]
    card = "---\nconfigs:\n"
    for name in names:
        write_dataset(tmp_path / "set" / name, {"train": [png(picture) for picture in noise(4)]})
        card += f"- config_name: {name}\n  data_files: {name}/plain_text/train-*\n"
    (tmp_path / "set" / "README.md").write_text(card + "---\n")
    with serve(Hub(repos={"datasets/someone/set": Repo.of(tmp_path / "set")})) as hub:
        none, wrong, right = load_in_process(
            hub.endpoint, tmp_path / "home", "someone/set", "someone/set:nothing", "someone/set:in the wild"
        )
    listed = ", ".join(names[:10]) + " …"
    several = "has several configurations: choose one, as in someone/set:in the wild"
    assert none["error"] == f"The dataset someone/set {several} ({listed})."
    lacking = "has no configuration 'nothing': choose one of these"
    assert wrong["error"] == f"The dataset someone/set {lacking}: {listed}."
    assert right["num"] == 2


@pytest.mark.slow
def test_hub_whose_file_host_is_unreachable(tmp_path, monkeypatch):
    """The Hub counts as unreachable if a firewall swallows requests to the host that it refers to for files."""
    folder = write_dataset(tmp_path / "set", {"train": [png(noise(1)[0])]})
    monkeypatch.setattr(sources, "HUB_SECONDS", 2.0)
    with silent_server() as silence:
        repo = Repo.of(folder, commit=sources.CIFAR10_REVISION, files_endpoint=silence)
        with serve(Hub(repos={"datasets/uoft-cs/cifar10": repo})) as hub:
            point_to(hub.endpoint, monkeypatch)
            with pytest.raises(ValueError, match="The Hub could not be reached within 2 seconds"):
                load_images("hub")
    assert hub.requests[-1].endswith(".parquet")


def cifar10_archive(folder: Path, pictures: torch.Tensor, labels: list[int], monkeypatch) -> None:
    """Writes a small archive in CIFAR-10's format, the last two images for testing, and makes torchvision expect it."""
    batches_of = {"data_batch_1": slice(0, -2), "test_batch": slice(-2, None)}
    contents = {
        name: {"data": pictures[part].flatten(1).numpy(), "labels": labels[part]} for name, part in batches_of.items()
    }
    contents["batches.meta"] = {"label_names": list(readers.CIFAR10_CLASSES)}
    (folder / CIFAR10.base_folder).mkdir(parents=True)
    md5 = {}
    for name, content in contents.items():
        pickled = pickle.dumps(content)
        (folder / CIFAR10.base_folder / name).write_bytes(pickled)
        md5[name] = hashlib.md5(pickled).hexdigest()
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as archive:
        archive.add(folder / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((folder / CIFAR10.filename).read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tarfile")  # torchvision's, from Python 3.12 on
def test_torchvision(tmp_path, monkeypatch, capfd):
    """torchvision's CIFAR10 reads the downloaded archive and prints nothing."""
    pictures, labels = noise(8), [3, 1, 4, 1, 5, 9, 2, 6]
    cifar10_archive(tmp_path / "www", pictures, labels, monkeypatch)
    with serve_folder(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        data = load_images("torchvision")
    assert (data.name, data.source, data.class_names) == ("CIFAR-10", "torchvision", readers.CIFAR10_CLASSES)
    assert torch.equal(data.train.images, pictures[:-2])
    assert torch.equal(data.test.images, pictures[-2:])
    assert data.train.labels.tolist() + data.test.labels.tolist() == labels
    assert capfd.readouterr() == ("", "")


def test_torchvision_checks_the_archive(tmp_path, monkeypatch):
    """An archive with another MD5 is refused before anything in it is unpickled."""
    cifar10_archive(tmp_path / "www", noise(4), [0, 1, 2, 3], monkeypatch)
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    monkeypatch.setattr(pickle, "load", None)
    with serve_folder(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        with pytest.raises(ValueError, match="sent something other than CIFAR-10"):
            load_images("torchvision")


@pytest.mark.parametrize("error", [ValueError("no number"), RuntimeError("no number"), OSError("no number")])
def test_an_error_of_a_library(error):
    """It becomes a sentence for the user, so that auto tries the next source."""

    def fetch(report):
        raise error

    source = sources.Source(address="broken", key="broken", fetch=fetch)
    with pytest.raises(UserError, match=r"^The images could not be read \(no number\)\.$"):
        source.read(ignore_progress)


@pytest.mark.slow
def test_auto_behind_a_firewall(monkeypatch):
    """If servers accept connections and never answer, auto draws shapes soon, and the note says why."""
    assert sources.HUB_SECONDS + sources.TORCHVISION_SECONDS < 10, "15 with drawing the shapes"
    monkeypatch.setattr(sources, "HUB_SECONDS", 0.5)
    monkeypatch.setattr(sources, "_TORCHVISION", replace(sources._TORCHVISION, reach_seconds=0.25))
    with silent_server() as silence:
        point_to(silence, monkeypatch)
        monkeypatch.setattr(CIFAR10, "url", f"{silence}/{CIFAR10.filename}")
        start = time.monotonic()
        data = load_images("auto")
        seconds = time.monotonic() - start
    assert data.name == data.source == "synthetic"
    assert data.note == (
        "Training on drawn shapes (synthetic), 10,000 training and 2,000 test images: "
        "the Hub could not be reached within 0.5 seconds; "
        "the server that torchvision gets CIFAR-10 from could not be reached within 0.25 seconds."
    )
    assert seconds < 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"please log in to the hotel's network", "sent something other than CIFAR-10"),
        (None, "answered with HTTP status 404"),
    ],
)
def test_auto_when_a_server_fails(tmp_path, monkeypatch, unreachable, sent, reason):
    """If the server sends something other than CIFAR-10, auto tries the next source."""
    (tmp_path / "www").mkdir()
    if sent:
        (tmp_path / "www" / CIFAR10.filename).write_bytes(sent)
    with serve_folder(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        data = load_images()
    assert data.source == "synthetic"
    assert data.note.endswith(
        ": the Hub was not contacted, because HF_HUB_OFFLINE is set; "
        f"the server that torchvision gets CIFAR-10 from {reason}."
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tarfile")
def test_auto_without_the_hub(tmp_path, monkeypatch, unreachable):
    """Without the Hub, auto loads torchvision's copy; later it loads the cached copy, not the cached shapes."""
    load_images("synthetic")
    cifar10_archive(tmp_path / "www", noise(4), [0, 1, 2, 3], monkeypatch)
    with serve_folder(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        first = load_images()
    second = load_images()
    assert first.source == second.source == "torchvision"
    assert first.note == (
        "Training on CIFAR-10 from torchvision, 2 training and 2 test images: "
        "the Hub was not contacted, because HF_HUB_OFFLINE is set."
    )
    assert second.note.endswith(": it was downloaded earlier.")


def test_stalled_server(monkeypatch):
    """A server that answers and then sends nothing more causes an error after STALL_SECONDS."""
    monkeypatch.setattr(sources, "STALL_SECONDS", 0.2)
    stalled = sources.Source(
        address="stalled",
        key="stalled",
        fetch=lambda report: threading.Event().wait(20),
        server="The server",
        reach=lambda report: None,
        reach_seconds=20,
    )
    with pytest.raises(ValueError, match=r"The server answered, then was silent for 0\.2 seconds"):
        stalled.read(lambda fraction, doing: None)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("No space left on device")])
def test_failing_source(error):
    """An operating system's or library's error becomes a sentence, so that auto can try the next source."""

    def fetch(report):
        raise error

    with pytest.raises(ValueError, match=r"^The images could not be read \(No space left on device\)\.$"):
        sources.Source(address="broken", key="broken", fetch=fetch).read(lambda fraction, doing: None)
