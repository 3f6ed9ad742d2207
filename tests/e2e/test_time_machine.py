"""The time machine in a real browser, for a run on this computer and for a published one."""

import json
import re
import shutil
import time

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
    """The path of a test picture, and its pixels."""
    pixels = images.test.images[5].contiguous()
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    write_png(pixels, str(path))
    return path, pixels


@pytest.fixture(scope="module")
def trained_page(app, visitor_page):
    """The page of a visitor who has trained three epochs."""
    with visitor_page() as page:
        visit(page, app.url + "/" + QUICK)
        page.click("#train")
        status_says(page, "^Done")
        yield page


@pytest.fixture
def page(app, trained_page):
    """The trained visitor's page with the time machine open, at the last epoch."""
    if trained_page.locator("#machine .says").is_visible():
        trained_page.locator("#machine input").press("End")
    else:
        visit(trained_page, app.url)
        open_time_machine(trained_page)
    wait_until_drawn(trained_page)
    return trained_page


@pytest.fixture
def folder(app, page):
    """The folder of the visitor's run, which is restored after the test."""
    found = find_run(app)
    copy = shutil.copytree(found, app.checkpoints.parent / "copy")
    yield found
    shutil.rmtree(found, ignore_errors=True)
    shutil.move(copy, found)


def find_run(app):
    """Returns the folder of the run with the settings of QUICK, among other tests' runs."""
    for history in app.checkpoints.glob("*/training.json"):
        config, folder = json.loads(history.read_text(encoding="utf-8"))["config"], history.parent
        if (config["optimizer"], config["lr"], config["num_images"]) == ("adam", 0.002, 512):
            return folder
    raise AssertionError("the visitor's run is not there")


def open_time_machine(page):
    page.get_by_role("tab", name="Inside").click()
    page.locator("#inside-view").get_by_text("Time machine").click()


def choose_run(page, name):
    """Types a name into the list of runs, in place of those that are chosen."""
    page.locator("#inside-runs input").press("Backspace")
    page.fill("#inside-runs input", name)
    page.keyboard.press("Enter")


def wait_until_drawn(page, name="Epoch 3"):
    page.wait_for_selector(f"#machine .name >> text={name}")
    page.wait_for_selector("#lines svg path")
    page.wait_for_selector("#learned svg path")


def expected_says(folder, epoch, pixels) -> str:
    """Returns the sentence that belongs next to the slider, from an epoch's weights and the history alone."""
    model = OptimizerLabModel.from_pretrained(folder)
    model.load_state_dict(load_file(folder / "epochs" / f"epoch-{epoch:04d}.safetensors"))
    answer = classify(model, pixels)
    confidence, accuracy = answer.confidences[answer.label], read_run(folder).history[epoch].test_accuracy
    return f"It says {answer.label}, {confidence:.1%}. Its test accuracy is {accuracy:.1%}."


def labels(page) -> tuple[str, str]:
    """Returns the name of the epoch and the sentence next to the slider."""
    return page.locator("#machine .name").inner_text(), page.locator("#machine .says").inner_text()


def upload(page, file):
    page.set_input_files("#travel-picture input[type=file]", file)


def test_each_epoch_has_its_own_numbers_and_no_requests(app, page, folder, picture, screenshots):
    """The answer, the bars, the rule in both charts and the filters follow the slider without a request."""
    file, pixels = picture
    upload(page, file)
    page.wait_for_function(
        "text => document.querySelector('#machine .says').innerText === text", arg=expected_says(folder, 3, pixels)
    )
    page.wait_for_timeout(500)
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    drawings = []
    page.locator("#machine input").focus()
    for epoch in reversed(EPOCHS):
        assert labels(page) == (f"Epoch {epoch}", expected_says(folder, epoch, pixels))
        drawings.append(drawing(page, drawings))
        page.keyboard.press("ArrowLeft")
    assert urls == []
    for part in zip(*drawings, strict=True):
        assert len(set(part)) == len(EPOCHS), "something did not follow the slider"
    page.screenshot(path=screenshots / "time-machine.png", full_page=True)


def drawing(page, earlier) -> tuple[str, ...]:
    """Returns the bars, the epoch's rule in two charts and the filters, once they all differ from the earlier ones."""
    end = time.monotonic() + 60
    while True:
        parts = _draw_parts(page)
        is_new = all(part not in others for part, *others in zip(parts, *earlier, strict=True))
        if is_new or time.monotonic() > end:
            return parts
        page.wait_for_timeout(50)


def _draw_parts(page) -> tuple[str, ...]:
    return tuple(
        page.evaluate(script)
        for script in (
            "[...document.querySelectorAll('#bars .mark-text text')].map(text => text.textContent).join()",
            "document.querySelector('#lines .role-mark.mark-rule line').getAttribute('transform')",
            "[...document.querySelectorAll('#learned .role-mark.mark-rule line')].pop().getAttribute('transform')",
            "document.querySelector('#filters canvas').toDataURL()",
        )
    )


def test_play_shows_each_epoch_without_new_charts(page):
    """Pressed at the last epoch it starts at the first; it stops by itself and can pause; charts are not replaced."""
    page.evaluate("document.querySelectorAll('#moments svg').forEach(svg => { svg.dataset.same = 'yes'; })")
    page.evaluate(
        """() => {
            window.names = [];
            const name = document.querySelector('#machine .name');
            const record = () => { if (names.at(-1) !== name.innerText) names.push(name.innerText); };
            new MutationObserver(record).observe(name, { childList: true, characterData: true, subtree: true });
        }"""
    )
    page.click("#machine button")
    page.wait_for_function("document.querySelector('#machine button').innerText === '▶'")
    assert page.evaluate("names") == [f"Epoch {epoch}" for epoch in EPOCHS]
    assert page.locator(":is(#lines, #bars, #learned) svg[data-same=yes]").count() == 3
    page.click("#machine button")
    at_epoch_1(page, "document.querySelector('#machine button').click()")
    before = labels(page)
    assert before[0] == "Epoch 1"
    page.wait_for_timeout(1200)
    assert labels(page) == before, "it was paused"


def at_epoch_1(page, script):
    """Runs a script while the slider, which is playing, is at epoch 1."""
    page.wait_for_function(
        "() => { if (document.querySelector('#machine .name').innerText !== 'Epoch 1') return false;"
        f" {script}; return true; }}",
        polling=20,
    )


def test_a_removed_machine_stops_playing(page):
    """Its timer ends at the next tick, not at the last epoch, which may still be in training."""
    page.evaluate(
        """() => {
            window.ticks = window.cleared = 0;
            const { setInterval, clearInterval } = window;
            let own;
            window.setInterval = (callback, delay) => own = setInterval(() => { ticks += 1; callback(); }, delay);
            document.querySelector('#machine button').click();
            window.setInterval = setInterval;
            window.clearInterval = timer => { if (timer === own) cleared += 1; clearInterval(timer); };
        }"""
    )
    at_epoch_1(page, "document.querySelector('#machine').remove(); window.ticks = window.cleared = 0")
    page.wait_for_function("cleared > 0")
    assert page.evaluate("[ticks, cleared]") == [1, 1]


def test_another_view_takes_its_place(page):
    """The page removes the charts and the filters first, and the script runs once more."""
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.locator("#inside-view").get_by_text("Landscape").click()
    page.wait_for_selector("#landscape-start:visible")
    open_time_machine(page)
    wait_until_drawn(page)
    assert errors == []


def test_another_picture_keeps_the_chosen_epoch(page):
    """A new picture changes only the answers."""
    page.locator("#machine input").focus()
    page.keyboard.press("ArrowLeft")
    before = labels(page)
    page.locator("#travel-samples button.thumbnail-item").nth(4).click()
    page.wait_for_function("text => document.querySelector('#machine .says').innerText !== text", arg=before[1])
    assert labels(page)[0] == before[0] == "Epoch 2"


def test_a_damaged_epoch_is_left_out_and_reported(app, page, folder):
    """One sentence names it, and the slider has the other epochs."""
    (folder / "epochs" / "epoch-0001.safetensors").write_bytes(b"nothing of the kind")
    page.locator("#travel-samples button.thumbnail-item").nth(2).click()
    page.wait_for_selector("#travel-says >> text=Epoch 1 is left out: epoch-0001.safetensors is damaged")
    page.locator("#machine input").focus()
    page.keyboard.press("Home")
    names = [labels(page)[0]]
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        names.append(labels(page)[0])
    assert names == ["Epoch 0", "Epoch 2", "Epoch 3"]


def test_a_run_that_was_deleted_meanwhile_is_reported(page, folder):
    """The page no longer shows anything of it."""
    shutil.rmtree(folder)
    page.locator("#travel-samples button.thumbnail-item").nth(3).click()
    page.wait_for_selector("#travel-says >> text=You have no such run")
    assert not page.locator("#machine .says").is_visible()
    assert not page.locator("#lines").is_visible()


def test_a_broken_picture_is_explained(page, tmp_path):
    """The sentence takes the place of the charts."""
    text = tmp_path / "text.png"
    text.write_text("hello")
    upload(page, text)
    page.wait_for_selector("#travel-says >> text=The file is not a picture that can be read here")
    assert not page.locator("#lines").is_visible()


def test_a_stranger_finds_nothing(app, folder, new_page):
    """A new visitor reads what to do first, and cannot open another visitor's run, even with its key."""
    visit(new_page, app.url)
    open_time_machine(new_page)
    new_page.wait_for_selector("#travel-says >> text=Train a network first")
    choose_run(new_page, folder.name)
    new_page.wait_for_selector("#travel-says >> text=You have no such run")


def test_it_fits_a_phone(app, trained_page, screenshots):
    """Nothing is wider than the screen, and the controls come before the charts that they move, in both languages."""
    page = trained_page
    page.set_viewport_size({"width": 400, "height": 900})
    for language, epoch in (("en", "Epoch 3"), ("zh", "第 3 轮")):
        # An old address: the time machine was a tab of its own.
        page.goto(f"{app.url}/?tab=time-machine&__theme=dark&lang={language}")
        wait_until_drawn(page, epoch)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert "tab=inside" in page.url
        assert "view=time-machine" in page.url
        top, picture = (page.locator(part).bounding_box()["y"] for part in ("#machine", "#travel-picture"))
        assert top < picture
        page.screenshot(path=screenshots / f"time-machine-400-{language}.png", full_page=True)


@pytest.fixture(scope="module")
def published(images, tmp_path_factory):
    """The folder of a run of three epochs, and a Hub that holds it."""
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
    """An app that uses that Hub and has downloaded nothing yet."""
    with launched(
        tmp_path / "checkpoints", HF_ENDPOINT=published[1].endpoint, HF_HUB_CACHE=str(tmp_path / "cache")
    ) as app:
        yield app


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_published_run_is_opened_and_each_epoch_downloaded_once(elsewhere, published, picture, new_page):
    """Each epoch's answer comes from its weights; another picture downloads nothing; a failed epoch is reported."""
    (folder, hub), (file, pixels) = published, picture
    visit(new_page, elsewhere.url)
    open_time_machine(new_page)
    new_page.wait_for_selector("#travel-says >> text=Train a network first")
    upload(new_page, file)
    choose_run(new_page, ID)
    wait_until_drawn(new_page)
    new_page.locator("#machine input").focus()
    for epoch in reversed(EPOCHS):
        assert labels(new_page) == (f"Epoch {epoch}", expected_says(folder, epoch, pixels))
        new_page.keyboard.press("ArrowLeft")
    assert len(weight_requests(hub)) == len(set(weight_requests(hub))) == len(EPOCHS)

    before = labels(new_page)[1]
    hub.faults.append(Fault(method="HEAD", path="epoch-0002/config.json", status=500, times=1000))
    new_page.locator("#travel-samples button.thumbnail-item").nth(4).click()
    new_page.wait_for_selector("#travel-says >> text=Epoch 2 is left out: The Hub has a problem (status 500)")
    assert new_page.locator("#machine input").get_attribute("max") == "2"
    assert labels(new_page)[1] != before
    assert len(weight_requests(hub)) == len(EPOCHS)

    choose_run(new_page, "owner/nothing")
    new_page.wait_for_selector("#travel-says >> text=There is no owner/nothing on the Hub")
    assert not new_page.locator("#lines").is_visible()


def weight_requests(hub) -> list[str]:
    """Returns the requests for weights, whose URLs name the commit."""
    return [one for one in hub.requests if re.fullmatch(r"GET /owner/run/resolve/\w+/model.safetensors", one)]
