"""The gallery in a real browser, with a local Hub: using what others published, and errors of the Hub."""

import json
import os
import threading
import time
from copy import deepcopy
from dataclasses import replace

import pytest
from fake_hub import Fault, Hub, Repo, point_to, serve
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from torchvision.io import write_png

from tests.e2e.test_page import status_says, visit
from trainer import OptimizerLabModel, classify
from trainer.hub.retry import SHORT_TIMEOUT_SECONDS
from trainer.images.image_data import facts, load_images
from trainer.learning.loop import train
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.runs.run_folder import writing
from trainer.settings.config import TrainConfig

ID = "owner/run"
HOSTILE = """---
tags: [optimizer-lab]
optimizer_lab:
  optimizer: "<img src=x onerror=window.pwned=1>"
  lr: "{{constructor}} ${window.pwned=2} {{{value}}}"
  scheduler: "'><script>window.pwned=3</script>"
model-index: [{results: [{dataset: {name: "<b onmouseover=window.pwned=4>x"}, metrics: [{type: accuracy, value: 1}]}]}]
---
"""


@pytest.fixture(scope="module")
def publication(tmp_path_factory) -> Repo:
    """A run on the app's own pictures, so that it can be resumed there, with a tag for its untrained weights."""
    images = load_images("synthetic")
    folder = tmp_path_factory.mktemp("published") / "run"
    config = TrainConfig(epochs=1, num_images=1024, batch_size=32, scheduler="constant")
    with writing(folder):
        for _ in record(train(config, images), Run(config=config), folder, facts(images)):
            pass
    repo = Repo.of(folder)
    untrained = {**repo.files, "model.safetensors": repo.files["epochs/epoch-0000.safetensors"]}
    return replace(repo, commits={"1" * 40: untrained, **repo.commits}, tags={"epoch-0000": "1" * 40})


@pytest.fixture(scope="module")
def server():
    with serve(Hub()) as served:
        yield served


@pytest.fixture(scope="module")
def app(server, launched, tmp_path_factory):
    """The app, which uses that server as the Hub."""
    home = str(tmp_path_factory.mktemp("home"))
    with launched(tmp_path_factory.mktemp("checkpoints"), HF_ENDPOINT=server.endpoint, HF_HOME=home) as running:
        yield running


@pytest.fixture
def hub(server, publication):
    """The Hub without faults, with one run."""
    server.faults.clear()
    server.repos = {ID: deepcopy(publication)}
    return server


@pytest.fixture
def picture(images, tmp_path):
    path = tmp_path / "shape.png"
    write_png(images.test.images[0].contiguous(), str(path))
    return path


@pytest.fixture
def page(app, hub, new_page):
    """The page of a new visitor; opening it sends the Hub no request."""
    before = len(hub.requests)
    visit(new_page, app.url)
    assert len(hub.requests) == before
    return new_page


def refresh(page, pattern):
    """Opens the gallery, reloads the list from the Hub, and waits until the new list matches."""
    page.get_by_role("tab", name="Gallery").click()
    page.wait_for_selector("#published :is(ul, .note, .advice)")
    time.sleep(2.1)  # the app would reuse the list that the tab has just shown for two seconds
    page.evaluate("for (const part of document.querySelectorAll('#published :is(ul, .note, .advice)')) part.id = 'old'")
    page.click("#refresh")
    page.wait_for_function(
        "pattern => new RegExp(pattern).test(document.querySelector('#published').innerText)"
        " && !document.querySelector('#old')",
        arg=pattern,
    )


def press(page, name):
    """Presses a button of ID's entry in the list."""
    page.locator("#published li", has_text=ID).get_by_role("button", name=name).click()


def test_one_press_classifies(page, picture, screenshots):
    """The uploaded picture is classified with the chosen run, and then with another epoch whose name is typed."""
    page.click("[role=tab][data-tab-id=classify]")
    page.set_input_files("#picture input[type=file]", picture)
    page.wait_for_function("/It says|best guess/.test(document.querySelector('#says').innerText)")
    bundled = confidences(page)
    refresh(page, ID)
    page.screenshot(path=screenshots / "gallery.png", full_page=True)
    press(page, "Classify with it")
    page.wait_for_function("name => document.querySelector('#checkpoint input').value === name", arg=ID)
    page.wait_for_selector("#says >> text=circle")
    trained = confidences(page)
    choose(page, "checkpoint", f"{ID}@epoch-0000")
    page.wait_for_function(
        "before => [...document.querySelectorAll('#label .confidence-set')].map(e => e.innerText).join() !== before",
        arg=",".join(trained),
    )
    assert len({str(one) for one in (bundled, trained, confidences(page))}) == 3


def test_what_cannot_be_opened_is_explained_in_place_of_the_answer(page, hub, picture):
    """The reason comes as text and before any timeout, and the page stays usable."""
    hub.repos["pickles/only"] = Repo(commits={"2" * 40: {"pytorch_model.bin": b"\x80\x04."}})
    hub.repos["gated/run"] = replace(deepcopy(hub.repos[ID]), gated=True)
    page.click("[role=tab][data-tab-id=classify]")
    page.set_input_files("#picture input[type=file]", picture)
    page.wait_for_function("/It says|best guess/.test(document.querySelector('#says').innerText)")
    for name, sentence in {
        "pickles/only": "contains no checkpoint of this app",
        "gated/run": "is gated",
        "owner/nothing": "There is no owner/nothing on the Hub",
        f"{ID}@epoch-0009": "has no such revision",
        "<img src=x onerror=window.pwned=5>/x": "is not the name of a repo on the Hub",
    }.items():
        started_at = time.monotonic()
        choose(page, "checkpoint", name)
        page.wait_for_selector(f"#says .advice >> text={sentence}")
        assert time.monotonic() - started_at < SHORT_TIMEOUT_SECONDS
    assert page.evaluate("window.pwned") is None
    choose(page, "checkpoint", ID)
    page.wait_for_function("/It says|best guess/.test(document.querySelector('#says').innerText)")


def test_one_press_compares(page, hub, screenshots, tmp_path):
    """With another run, whose name is typed; the table and the CSV name the repo of each."""
    hub.repos["other/run"] = deepcopy(hub.repos[ID])
    refresh(page, "other/run")
    press(page, "Compare its curve")
    page.wait_for_selector("#compared-legend >> text=are reported by their owners")
    choose(page, "compared", "other/run")
    page.wait_for_selector("#compared-table td >> text=other/run")
    assert page.locator("#compared-table tbody tr").count() == 2
    page.screenshot(path=screenshots / "gallery-compared.png", full_page=True)
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "runs.csv")
    rows = (tmp_path / "runs.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["repo_id", ID, ID, "other/run", "other/run"]


def test_one_press_loads_what_can_be_resumed(page):
    """The run joins the visitor's own runs, and resumes from its last epoch."""
    refresh(page, ID)
    press(page, "Load into my runs")
    status_says(page, "^Done")
    page.wait_for_function("document.querySelector('#more-epochs input').value === '11'")
    page.fill("#more-epochs input", "2")
    page.click("#resume")
    status_says(page, "^Training|epoch 2 of 2")
    status_says(page, "^Done epoch 2 of 2")


def test_a_hostile_card_does_nothing(page, hub):
    """Markup and templates in a card are shown as text; a repo with an invalid name is not listed."""
    hub.repos = {
        "evil/card": Repo(commits={"3" * 40: {"README.md": HOSTILE.encode()}}),
        "x/<script>window.pwned=6</script>": deepcopy(hub.repos[ID]),
    }
    refresh(page, "evil/card")
    displayed = page.locator("#published").inner_text()
    for text in ("<img src=x onerror=window.pwned=1>", "{{constructor}} ${window.pwned=2}", "<b onmouseover="):
        assert text in displayed
    assert page.locator("#published li").count() == 1
    page.locator("#published li").hover()
    assert page.locator("#published img, #published script, #published b").count() == 0
    page.get_by_role("button", name="Compare its curve").click()
    page.wait_for_selector("text=evil/card contains no checkpoint of this app")
    assert page.evaluate("window.pwned") is None


def test_nothing_is_published(page, hub):
    hub.repos.clear()
    refresh(page, "No checkpoint of this app has been published yet")


def test_errors_of_the_hub_and_its_recovery(page, hub):
    """Each error gives a sentence, and Refresh works again afterwards."""
    refresh(page, ID)
    hub.faults = [
        Fault(method="GET", path="/api/models", status=503, times=2),
        Fault(method="GET", path="/api/models", how="lose", times=2),
    ]
    refresh(page, r"The Hub has a problem \(status 503\)")
    refresh(page, "The Hub cannot be reached")
    refresh(page, ID)


def test_a_slow_hub_holds_up_nothing_else(page, hub, picture, screenshots):
    """While the list waits for the Hub, a picture is classified and a network is trained."""
    answered = threading.Event()  # times=2: after its timeout the app tries once again
    hub.faults = [Fault(method="GET", path="/api/models", how="hold", seconds=60, released=answered, times=2)]
    refresh(page, "The Hub is slow to answer")
    page.screenshot(path=screenshots / "gallery-slow.png", full_page=True)
    page.get_by_role("tab", name="Classify").click()
    page.set_input_files("#picture input[type=file]", picture)
    page.wait_for_function("/It says|best guess/.test(document.querySelector('#says').innerText)")
    page.get_by_role("tab", name="Train").click()
    page.click("#train")
    status_says(page, "^Training")
    assert "The Hub is slow" in page.locator("#published").text_content()
    answered.set()
    page.wait_for_selector(f"#published a >> text={ID}", state="attached")


def test_page_api_command_line_and_library_agree(app, hub, picture, command_line, tmp_path, monkeypatch):
    """All give one picture the same probabilities, to 1e-6, with each revision of a repo."""
    environment = {**os.environ, **app.environment, "HF_HOME": str(tmp_path)}
    point_to(hub.endpoint, monkeypatch, tmp_path / "cache")
    client = Client(app.url, verbose=False)
    answers = []
    for name, revision in ((ID, None), (f"{ID}@epoch-0000", "epoch-0000"), (f"{ID}@{'1' * 40}", "1" * 40)):
        api = client.predict(handle_file(picture), name, api_name="/classify")["confidences"]
        line = command_line("classify", name, picture, "--json", env=environment)
        library = classify(OptimizerLabModel.from_pretrained(ID, revision=revision), picture).confidences
        assert json.loads(line.stdout)["confidences"] == pytest.approx(api, abs=1e-6)
        assert library == pytest.approx(api, abs=1e-6)
        answers.append(api)
    assert answers[1] == answers[2] != answers[0]
    for name, sentence in (("owner/nothing", "There is no owner/nothing"), ("../../x", "not the name of a repo")):
        with pytest.raises(AppError, match=sentence):
            client.predict(handle_file(picture), name, api_name="/classify")
    client.close()


def confidences(page) -> list[str]:
    return page.locator("#label .confidence-set").all_inner_texts()


def choose(page, elem_id: str, name: str) -> None:
    """Types a name into a dropdown."""
    page.locator(f"#{elem_id} input").fill(name)
    page.keyboard.press("Enter")
