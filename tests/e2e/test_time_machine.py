"""The time machine in a real browser: one sees a run learn, whether it is kept here or published."""

import json
import re
import shutil

import pytest
from fake_hub import OWNER, Fault, Hub, point_to, serve
from safetensors.torch import load_file
from torchvision.io import write_png

from tests.e2e.test_page import status_says, visit
from trainer import OptimizerLabModel, classify
from trainer.hub.publish import publish
from trainer.images.image_data import facts
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.reader import read_run
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

EPOCHS = (0, 1, 2, 3)
QUICK = "?epochs=3&num_images=512&scheduler=constant&optimizer=adam&lr=0.002"
ID = "owner/run"


@pytest.fixture(scope="module")
def picture(images, tmp_path_factory):
    """A test picture as a file, and its pixels."""
    pixels = images.test.images[5].contiguous()
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    write_png(pixels, str(path))
    return path, pixels


@pytest.fixture(scope="module")
def traveller(app, browser):
    """The page of a visitor who has trained three epochs; fails if the page's scripts fail."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    visit(page, app.url + "/" + QUICK)
    page.click("#train")
    status_says(page, "^Done")
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def page(app, traveller):
    """The traveller's page, with the time machine open."""
    visit(traveller, app.url)
    open_time_machine(traveller)
    arrived(traveller)
    return traveller


@pytest.fixture
def folder(app, page):
    """The folder of the traveller's run, which is as it was again when the test is over."""
    found = run_of(app)
    kept = shutil.copytree(found, app.checkpoints.parent / "kept")
    yield found
    shutil.rmtree(found, ignore_errors=True)
    shutil.move(kept, found)


def run_of(app):
    """The run with the settings of QUICK; other tests' runs lie beside it."""
    for folder in app.checkpoints.iterdir():
        config = json.loads((folder / "training.json").read_text())["config"]
        if (config["optimizer"], config["lr"], config["num_images"]) == ("adam", 0.002, 512):
            return folder
    raise AssertionError("the traveller's run is not there")


def open_time_machine(page):
    page.get_by_role("tab", name="Time machine").click()


def arrived(page, name="Epoch 3"):
    page.wait_for_selector(f"#machine .name >> text={name}")
    page.wait_for_selector("#lines svg path")
    page.wait_for_selector("#learned svg path")


def says(folder, epoch, pixels) -> str:
    """What must stand beside the slider, of an epoch's weights and the history alone."""
    model = OptimizerLabModel.from_pretrained(folder)
    model.load_state_dict(load_file(folder / "epochs" / f"epoch-{epoch:04d}.safetensors"))
    seen = classify(model, pixels)
    right = read_run(folder).history[epoch].test_accuracy
    return f"It says {seen.label}, {seen.confidences[seen.label]:.1%}. Of the test pictures it gets {right:.1%} right."


def told(page) -> tuple[str, str]:
    return page.locator("#machine .name").inner_text(), page.locator("#machine .says").inner_text()


def upload(page, file):
    page.set_input_files("#travel-picture input[type=file]", file)


def test_each_epoch_is_shown_with_its_own_numbers_and_at_once(app, page, folder, picture, screenshots):
    """The uploaded picture's answer, the bars, the rule in both charts and the filters follow the slider alone."""
    file, pixels = picture
    upload(page, file)
    page.wait_for_function(
        "text => document.querySelector('#machine .says').innerText === text", arg=says(folder, 3, pixels)
    )
    page.wait_for_timeout(500)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    looks = []
    page.locator("#machine input").focus()
    for epoch in reversed(EPOCHS):
        assert told(page) == (f"Epoch {epoch}", says(folder, epoch, pixels))
        page.wait_for_timeout(100)
        looks.append(look(page))
        page.keyboard.press("ArrowLeft")
    assert asked == []
    for part in zip(*looks, strict=True):
        assert len(set(part)) == len(EPOCHS), "something did not follow the slider"
    page.screenshot(path=screenshots / "time-machine.png", full_page=True)


def look(page) -> tuple[str, ...]:
    """What is drawn: the bars, the epoch's rule in two charts, and the filters."""
    return tuple(
        page.evaluate(script)
        for script in (
            "[...document.querySelectorAll('#bars .mark-text text')].map(text => text.textContent).join()",
            "document.querySelector('#lines .role-mark.mark-rule line').getAttribute('transform')",
            "[...document.querySelectorAll('#learned .role-mark.mark-rule line')].pop().getAttribute('transform')",
            "document.querySelector('#filters canvas').toDataURL()",
        )
    )


def test_play_walks_from_the_first_epoch_to_the_last_without_drawing_anew(page):
    """Pressed at the end it begins at the beginning; the charts stay the same elements; it stops by itself."""
    page.evaluate("document.querySelectorAll('#moments svg').forEach(svg => { svg.dataset.same = 'yes'; })")
    page.click("#machine button")
    for epoch in EPOCHS:
        page.wait_for_selector(f"#machine .name >> text=Epoch {epoch}", timeout=5000)
    page.wait_for_function("document.querySelector('#machine button').innerText === '▶'")
    assert page.locator("#moments svg[data-same=yes]").count() == 3
    page.click("#machine button")
    page.wait_for_selector("#machine .name >> text=Epoch 1")
    page.click("#machine button")
    before = told(page)
    page.wait_for_timeout(1200)
    assert told(page) == before, "it was paused"


def test_a_removed_machine_stops_playing(page):
    """Its timer ends with it, not with the last epoch, which may still be trained."""
    page.evaluate(
        "window.cleared = []; const { clearInterval } = window;"
        "window.clearInterval = timer => { cleared.push(timer); clearInterval(timer); }"
    )
    page.click("#machine button")
    page.wait_for_selector("#machine .name >> text=Epoch 1")
    page.evaluate("document.querySelector('#machine').remove(); cleared.length = 0")
    page.wait_for_timeout(800)
    assert page.evaluate("cleared.length") == 1


def test_another_picture_leaves_the_chosen_epoch(page):
    """Only the answers change."""
    page.locator("#machine input").focus()
    page.keyboard.press("ArrowLeft")
    before = told(page)
    page.locator("#travel-samples button.thumbnail-item").nth(4).click()
    page.wait_for_function("text => document.querySelector('#machine .says').innerText !== text", arg=before[1])
    assert told(page)[0] == before[0] == "Epoch 2"


def test_a_damaged_epoch_is_left_out_and_said(app, page, folder):
    """One sentence; the slider has the others."""
    (folder / "epochs" / "epoch-0001.safetensors").write_bytes(b"nothing of the kind")
    page.locator("#travel-samples button.thumbnail-item").nth(2).click()
    page.wait_for_selector("#travel-says >> text=Epoch 1 is left out: epoch-0001.safetensors is damaged")
    page.locator("#machine input").focus()
    page.keyboard.press("Home")
    names = [told(page)[0]]
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        names.append(told(page)[0])
    assert names == ["Epoch 0", "Epoch 2", "Epoch 3"]


def test_a_run_that_was_deleted_meanwhile_is_said(page, folder):
    """And nothing of it is shown any more."""
    shutil.rmtree(folder)
    page.locator("#travel-samples button.thumbnail-item").nth(3).click()
    page.wait_for_selector("#travel-says >> text=There is no such run among yours")
    assert not page.locator("#machine .says").is_visible()
    assert not page.locator("#lines").is_visible()


def test_a_broken_picture_is_said(page, tmp_path):
    """In the place of what it would show."""
    text = tmp_path / "text.png"
    text.write_text("hello")
    upload(page, text)
    page.wait_for_selector("#travel-says >> text=The file is not a picture that can be read here")
    assert not page.locator("#lines").is_visible()


def test_a_stranger_finds_nothing(app, folder, new_page):
    """A newcomer is told what to do; another visitor's run is not theirs, even with its key."""
    visit(new_page, app.url)
    open_time_machine(new_page)
    new_page.wait_for_selector("#travel-says >> text=Train a network first")
    new_page.fill("#travelled input", folder.name)
    new_page.keyboard.press("Enter")
    new_page.wait_for_selector("#travel-says >> text=There is no such run among yours")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_fits_a_phone(app, page, screenshots, language):
    """The tab is in sight, nothing is wider than the screen, and the controls come before what they move."""
    page.set_viewport_size({"width": 400, "height": 900})
    try:
        page.goto(f"{app.url}/?__theme=dark&lang={language}")
        page.get_by_role("tab", name={"en": "Time machine", "zh": "时间机器"}[language]).click()
        arrived(page, {"en": "Epoch 3", "zh": "第 3 轮"}[language])
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        top, picture = (page.locator(part).bounding_box()["y"] for part in ("#machine", "#travel-picture"))
        assert top < picture
        page.screenshot(path=screenshots / f"time-machine-400-{language}.png", full_page=True)
    finally:
        page.goto(f"{app.url}/?lang=en")
        page.set_viewport_size({"width": 1440, "height": 1000})


@pytest.fixture(scope="module")
def published(images, tmp_path_factory):
    """A run of three epochs, its folder, and a Hub that holds it."""
    folder = tmp_path_factory.mktemp("published") / "run"
    config = TrainConfig(epochs=3, num_images=512, optimizer="adam", lr=0.002, scheduler="constant")
    with run_folder.writing(folder):
        list(record(train(config, images), Run(config=config), folder, facts(images)))
    with serve(Hub()) as hub:
        with pytest.MonkeyPatch.context() as patch:
            point_to(hub.endpoint, patch)
            publish(folder, ID, token=OWNER)
        yield folder, hub


@pytest.fixture
def elsewhere(launched, published, tmp_path):
    """An app that asks that Hub, and has nothing of it yet."""
    with launched(
        tmp_path / "checkpoints", HF_ENDPOINT=published[1].endpoint, HF_HUB_CACHE=str(tmp_path / "cache")
    ) as app:
        yield app


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_published_run_is_walked_and_each_epoch_fetched_once(elsewhere, published, picture, new_page):
    """Its numbers are those of its weights; another picture fetches nothing; one that fails is left out and said."""
    (folder, hub), (file, pixels) = published, picture
    visit(new_page, elsewhere.url)
    open_time_machine(new_page)
    new_page.wait_for_selector("#travel-says >> text=Train a network first")
    upload(new_page, file)
    new_page.fill("#travelled input", ID)
    new_page.keyboard.press("Enter")
    arrived(new_page)
    new_page.locator("#machine input").focus()
    for epoch in reversed(EPOCHS):
        assert told(new_page) == (f"Epoch {epoch}", says(folder, epoch, pixels))
        new_page.keyboard.press("ArrowLeft")
    assert len(fetched(hub)) == len(set(fetched(hub))) == len(EPOCHS)

    last = told(new_page)[1]
    hub.faults.append(Fault(method="HEAD", path="epoch-0002/config.json", status=500, times=1000))
    new_page.locator("#travel-samples button.thumbnail-item").nth(4).click()
    new_page.wait_for_selector("#travel-says >> text=Epoch 2 is left out: The Hub has a problem (status 500)")
    assert new_page.locator("#machine input").get_attribute("max") == "2"
    assert told(new_page)[1] != last
    assert len(fetched(hub)) == len(EPOCHS)

    new_page.fill("#travelled input", "owner/nothing")
    new_page.keyboard.press("Enter")
    new_page.wait_for_selector("#travel-says >> text=There is no owner/nothing on the Hub")
    assert not new_page.locator("#lines").is_visible()


def fetched(hub) -> list[str]:
    """The requests for weights themselves, each by the commit it is of."""
    return [asked for asked in hub.requests if re.fullmatch(r"GET /owner/run/resolve/\w+/model.safetensors", asked)]
