"""What somebody can do to another visitor's run by hand-made requests: nothing."""

import hashlib
import json
import shutil
import urllib.error
import urllib.request

import pytest
from gradio_client import Client
from torchvision.io import write_png

from tests.e2e.test_endpoints import call, uploaded
from trainer.runs import run_folder
from ui.lab import new_visitor

# Gradio itself refuses what is in no list that this session's page was shown. A stranger who has got hold of the
# owner's session is the worst that can come to the app's own checks.
SESSION = "of-the-owners-page"
SMALL = {"epochs": 2, "num_images": 256, "batch_size": 64, "scheduler": "constant"}


@pytest.fixture(scope="module")
def owner():
    return new_visitor()


@pytest.fixture(scope="module")
def run(app, owner):
    """A run that is its visitor's, in the app's folder."""
    client = Client(app.url, verbose=False)
    key = list(client.submit(SMALL, api_name="/train"))[-1]["checkpoint"]
    client.close()
    folder = shutil.copytree(app.checkpoints / key, app.checkpoints / run_folder.new_key())
    (folder / ".owner").write_text(hashlib.sha256(owner.encode()).hexdigest())
    return folder


@pytest.fixture(scope="module")
def endpoints(app):
    """The inputs of every endpoint, private ones too, each as the untouched page would send it."""
    with urllib.request.urlopen(f"{app.url}/config", timeout=30) as answer:
        config = json.load(answer)
    values = {part["id"]: part["props"].get("value") for part in config["components"]}
    return {one["api_name"]: [values[at] for at in one["inputs"]] for one in config["dependencies"] if one["api_name"]}


def ask(app, endpoints, name, *first, session=SESSION) -> str:
    """What the endpoint answers to these first inputs, the others as the page has them."""
    data = [*first, *endpoints[name][len(first) :]]
    return call(app, name, data, patience=60, session_hash=session)


def state(folder):
    """Every file of the run and what is in it."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def attempts(key):
    """The endpoints that take a run, with what goes after the visitor."""
    return {
        "_show": [key],
        "_download": [key],
        "_delete": [key],
        "_compare": [[key], "test_accuracy"],
        "_export": [[key]],
        "_compared_code": [[key]],
        "_resume": [0.0, key, 3, False],
        "_publish": [key, None, "stranger/run", False],
    }


def test_the_owner_may(app, endpoints, run, owner):
    """The same requests with the right visitor's key do what they do: what follows is no accident."""
    assert "of 2 epochs" in ask(app, endpoints, "_load", owner)
    for name, inputs in attempts(run.name).items():
        if name not in ("_delete", "_resume"):
            answer = ask(app, endpoints, name, owner, *inputs)
            assert "event: error" not in answer, name
            assert "no such run" not in answer, name


def test_a_stranger_may_not(app, endpoints, run, owner):
    """List, show, download, compare, export, delete, resume: with a key of their own, or whatever they might try."""
    ask(app, endpoints, "_load", owner)
    before = state(run)
    digest = (run / ".owner").read_text()
    for number, visitor in enumerate(
        (new_visitor(), digest[:32], None, owner.upper(), owner[:-1], digest, run.name, "", [owner], {}, 0)
    ):
        assert "of 2 epochs" not in ask(app, endpoints, "_load", visitor, session="of-their-own"), visitor
        for name, inputs in attempts(run.name).items():
            if number > 2 and name not in ("_show", "_delete"):  # all endpoints look at the visitor in the same way
                continue
            answer = ask(app, endpoints, name, visitor, *inputs)
            assert "no such run" in answer or "not known here" in answer, (name, visitor, answer)
            assert run.name not in answer, (name, visitor)
    assert state(run) == before


def test_a_stranger_walks_through_no_epochs(app, endpoints, run, owner, images, tmp_path):
    """The time machine opens a run for its owner alone."""
    write_png(images.test.images[0].contiguous(), str(tmp_path / "shape.png"))
    client = Client(app.url, verbose=False)
    picture = {"path": uploaded(client, tmp_path / "shape.png")}
    client.close()
    assert "Of the test pictures it gets" in ask(app, endpoints, "_walk", owner, run.name, picture)
    for visitor in (new_visitor(), owner.upper(), run.name, "", None, [owner]):
        answer = ask(app, endpoints, "_walk", visitor, run.name, picture)
        assert "no such run" in answer, (visitor, answer)
        assert "Of the test pictures it gets" not in answer, visitor


@pytest.mark.parametrize("key", ["../{name}", "{name}/", "{name}/epochs", "./{name}", "{upper}", "*", "", None, 3, []])
def test_a_guessed_or_bent_name_leads_nowhere(app, endpoints, run, owner, key):
    """Not even for the owner: a run is named by its key and nothing else."""
    bent = key.format(name=run.name, upper=run.name.upper()) if isinstance(key, str) else key
    before = state(run)
    for name, inputs in attempts(bent).items():
        if name in ("_delete", "_resume"):
            ask(app, endpoints, name, owner, *inputs)
    assert state(run) == before


@pytest.mark.parametrize("path", ["{folder}/model.safetensors", "{folder}/.owner", "{folder}/../{name}/training.json"])
def test_no_file_of_a_run_is_served(app, run, path):
    """Gradio's own way to files gives out none of the runs' folder, to nobody."""
    asked = path.format(folder=run, name=run.name)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{app.url}/gradio_api/file={asked}", timeout=30)
    refused.value.close()
    assert refused.value.code in (403, 404)
