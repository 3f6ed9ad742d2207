"""Raw requests of one visitor cannot read or change another visitor's run."""

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
from ui.visitors import new_visitor

# Gradio itself refuses a choice that is in no list of the session. A stranger with the owner's session passes that
# check, so it is the hardest case for the app's own checks.
SESSION = "of-the-owners-page"
SMALL = {"epochs": 2, "num_images": 256, "batch_size": 64, "scheduler": "constant"}


@pytest.fixture(scope="module")
def owner():
    return new_visitor()


@pytest.fixture(scope="module")
def run(app, owner):
    """The folder of a run that belongs to `owner`."""
    client = Client(app.url, verbose=False)
    key = list(client.submit(SMALL, api_name="/train"))[-1]["checkpoint"]
    client.close()
    folder = shutil.copytree(app.checkpoints / key, app.checkpoints / run_folder.new_key())
    (folder / ".owner").write_text(hashlib.sha256(owner.encode()).hexdigest())
    return folder


@pytest.fixture(scope="module")
def endpoints(app):
    """The default inputs of every endpoint, private ones too, as the page would send them."""
    with urllib.request.urlopen(f"{app.url}/config", timeout=300) as answer:
        config = json.load(answer)
    values = {part["id"]: part["props"].get("value") for part in config["components"]}
    return {one["api_name"]: [values[id] for id in one["inputs"]] for one in config["dependencies"] if one["api_name"]}


def request(app, endpoints, name, *first, session=SESSION) -> str:
    """Returns an endpoint's response to these first inputs, with the page's defaults for the others."""
    data = [*first, *endpoints[name][len(first) :]]
    return call(app, name, data, session_hash=session)


def state(folder):
    """Returns every file of a run with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def attempts(visitor, key):
    """Returns the endpoints that take a run, each with its first inputs; None stands for a session's state."""
    return {
        "_show": [visitor, None, key],
        "_download": [visitor, key],
        "_delete": [key, visitor],
        "_compare": [visitor, [key], "test_accuracy"],
        "_export": [visitor, [key]],
        "_compared_code": [visitor, [key]],
        "_resume": [visitor, None, key, 3, False],
        "_go_on": [visitor, None, key, 3],
        "_publish": [visitor, key, None, "stranger/run", False],
    }


CHANGE = ("_delete", "_resume", "_go_on")  # the endpoints that change a run, even for its owner


def test_the_owner_has_access(app, endpoints, run, owner):
    """The same requests succeed with the owner's key, so their refusal below has the right reason."""
    assert "of 2 epochs" in request(app, endpoints, "_load", owner)
    for name, inputs in attempts(owner, run.name).items():
        if name not in CHANGE:
            answer = request(app, endpoints, name, *inputs)
            assert "event: error" not in answer, name
            assert "no such run" not in answer, name


def test_a_stranger_has_no_access(app, endpoints, run, owner):
    """No endpoint accepts a stranger's own key, a guess at the owner's or a value of another type."""
    request(app, endpoints, "_load", owner)
    before = state(run)
    digest = (run / ".owner").read_text()
    for number, visitor in enumerate(
        (new_visitor(), digest[:32], None, owner.upper(), owner[:-1], digest, run.name, "", [owner], {}, 0)
    ):
        assert "of 2 epochs" not in request(app, endpoints, "_load", visitor, session="of-the-strangers-page"), visitor
        for name, inputs in attempts(visitor, run.name).items():
            if number > 2 and name not in ("_show", "_delete"):  # all endpoints check the visitor in the same way
                continue
            answer = request(app, endpoints, name, *inputs)
            assert "no such run" in answer or "not known here" in answer, (name, visitor, answer)
            assert run.name not in answer, (name, visitor)
    assert state(run) == before


def test_a_stranger_cannot_open_the_time_machine(app, endpoints, run, owner, images, tmp_path):
    """The time machine opens a run only for its owner."""
    write_png(images.test.images[0].contiguous(), str(tmp_path / "shape.png"))
    client = Client(app.url, verbose=False)
    picture = {"path": uploaded(client, tmp_path / "shape.png")}
    client.close()
    assert "Its test accuracy is" in request(app, endpoints, "_walk", owner, [run.name], None, picture)
    for visitor in (new_visitor(), owner.upper(), run.name, "", None, [owner]):
        answer = request(app, endpoints, "_walk", visitor, [run.name], None, picture)
        assert "no such run" in answer, (visitor, answer)
        assert "Its test accuracy is" not in answer, visitor


@pytest.mark.parametrize("key", ["../{name}", "{name}/", "{name}/epochs", "./{name}", "{upper}", "*", "", None, 3, []])
def test_a_manipulated_key_opens_nothing(app, endpoints, run, owner, key):
    """Only the exact key names a run, even for its owner."""
    manipulated = key.format(name=run.name, upper=run.name.upper()) if isinstance(key, str) else key
    before = state(run)
    for name, inputs in attempts(owner, manipulated).items():
        if name in CHANGE:
            request(app, endpoints, name, *inputs)
    assert state(run) == before


@pytest.mark.parametrize("path", ["{folder}/model.safetensors", "{folder}/.owner", "{folder}/../{name}/training.json"])
def test_no_file_of_a_run_is_served(app, run, path):
    """Gradio's file endpoint serves nothing from the folder of runs."""
    requested = path.format(folder=run, name=run.name)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{app.url}/gradio_api/file={requested}", timeout=300)
    refused.value.close()
    assert refused.value.code in (403, 404)
