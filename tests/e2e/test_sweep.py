"""The Sweep tab in a real browser, and /sweep through the real gradio_client."""

import csv
import re
import time
from urllib.parse import quote

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.e2e.test_address import tab_is
from tests.e2e.test_strangers import endpoints, request  # noqa: F401 - a fixture
from ui.visitors import new_visitor

PLAN = "lr=0.003..0.03:2&optimizer=sgd,adam&seeds=1&epochs=1&num_images=512"
LONG = "lr=0.001..0.1:3&optimizer=sgd,adamw&seeds=2&epochs=20&num_images=2048"
POINTS = "#sweep-chart .mark-symbol path[aria-roledescription=point]"
SHARED = {"epochs": 1, "num_images": 512, "scheduler": "constant"}


def visit(page, app, plan):
    page.goto(f"{app.url}/?tab=sweep&plan={quote(plan)}")
    tab_is(page, "sweep")


def says(page, pattern, place="#sweep-status"):
    try:
        page.wait_for_function(
            "([place, pattern]) => new RegExp(pattern).test(document.querySelector(place)?.innerText)",
            arg=[place, pattern],
        )
    except Exception as error:
        said = page.locator(place).inner_text()
        raise AssertionError(f"{place} never said {pattern!r}; it says {said!r}") from error


def test_a_sweep_from_its_link_to_its_best(app, new_page, screenshots):
    """The cost before Start, a reload in the middle, the points, a pressed one, its settings for a longer training."""
    page = new_page
    visit(page, app, PLAN)
    says(page, "^Plan: 4 runs · about", "#sweep-cost")
    page.click("#sweep-start")
    says(page, r"^Training [1-4] of 4 runs")
    page.reload()
    says(page, r"^(Training|Done) [1-4] of 4 runs")
    says(page, "^Done 4 of 4 runs")
    page.wait_for_function("([points, count]) => document.querySelectorAll(points).length >= count", arg=[POINTS, 4])
    assert page.locator("#sweep-table tbody tr").count() == 2
    page.screenshot(path=screenshots / "sweep.png", full_page=True)

    before = page.locator("#sweep-picked input").input_value()
    for index in range(4):
        page.locator(POINTS).nth(index).click(force=True)
        page.wait_for_timeout(500)
        if (pressed := page.locator("#sweep-picked input").input_value()) != before:
            break
    assert pressed != before
    with page.expect_download() as download:
        page.click("#sweep-csv")
    with download.value.path().open(encoding="utf-8", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["completed"] * 4
    page.click("#sweep-longer")
    tab_is(page, "train")
    optimizer, _, lr = pressed.partition(" · lr ")
    page.wait_for_function("lr => document.querySelector('#setting-lr input').value === lr", arg=lr)
    assert page.locator("#setting-optimizer input").input_value() == optimizer
    assert page.locator("#setting-epochs input[type=number]").input_value() == "10"


def test_stop_and_resume(app, new_page):
    """Stop ends the sweep and no other job; what is left is trained after Resume; Delete removes it."""
    page = new_page
    visit(page, app, LONG)
    page.click("#sweep-start")
    says(page, "^Training 0 of 12 runs · about")
    page.click("[role=tab][data-tab-id=train]")
    tab_is(page, "train")
    assert page.locator("#train").is_enabled(), "a sweep does not keep one from training"
    page.click("[role=tab][data-tab-id=sweep]")
    page.click("#sweep-stop")
    says(page, "^Stopped 0 of 12 runs · Resume trains the others")
    page.click("#sweep-resume")
    says(page, "^Training 0 of 12 runs")
    page.click("#sweep-stop")
    says(page, "^Stopped")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#delete-sweep")
    says(page, "^(Ready|A recorded sweep)")


def test_a_lesson_shows_the_recorded_sweep(app, new_page, screenshots):
    """One press away from the lesson: its chart, its command and what it says, before anything is trained."""
    page = new_page
    page.goto(app.url)
    page.click("[data-lesson=how-forgiving]")
    page.wait_for_selector("#lesson-words >> text=Which valley is the deepest?")
    page.click("#lesson-sweep")
    tab_is(page, "sweep")
    says(page, "^A recorded sweep of 90 runs on CIFAR-10")
    says(page, "What happens on CIFAR-10:")
    page.wait_for_function("([points, count]) => document.querySelectorAll(points).length >= count", arg=[POINTS, 30])
    page.screenshot(path=screenshots / "recorded-sweep.png", full_page=True)
    page.click("#sweep-start")
    says(page, "^(Not started|Training)")
    page.click("#sweep-stop")


def test_a_wrong_plan_is_explained_beside_start(app, new_page):
    """In one sentence, from a link and from the fields; nothing starts."""
    page = new_page
    visit(page, app, "lr=1..0:3")
    says(page, "This link does not work here", "#refused-sweep")
    page.fill("#sweep-across-low input", "2")
    page.fill("#sweep-across-high input", "1")
    says(page, "A range goes from a number above 0 to a larger one, not from 2 to 1", "#sweep-cost")
    page.click("#sweep-start")
    says(page, "A range goes from a number above 0 to a larger one", "#refused-sweep")
    assert page.locator("#sweep-stop").is_disabled()


def test_the_plan_follows_its_widgets_into_the_address(app, new_page):
    """A slider sets a power of ten, and the address holds the plan, which Copy link copies with its tab."""
    page = new_page
    visit(page, app, PLAN)
    page.wait_for_function("document.querySelector('#sweep-images input').value === '512'")
    page.fill("#sweep-images input", "640")
    page.wait_for_function("/plan=[^&]*num_images%3D640/.test(location.search)")
    page.locator("#power-sweep-across-high input[type=range]").fill("0")
    page.wait_for_function("/plan=lr%3D0.003..1%3A2[^&]*num_images%3D640/.test(location.search)")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy-link")
    page.wait_for_selector("#copy-link >> text=Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    page.goto(copied)
    tab_is(page, "sweep")
    page.wait_for_function("document.querySelector('#sweep-images input').value === '640'")


def test_every_text_of_the_tab_is_chinese(app, visitor_page):
    """Neither translation markers nor English sentences."""
    with visitor_page("zh-CN") as page:
        visit(page, app, PLAN)
        says(page, "^计划：4 次训练", "#sweep-cost")
        text = page.locator("#sweep").inner_text()
        text = text.replace(page.locator("#sweep-status code").inner_text(), "") if "python" in text else text
        assert "__i18n__" not in text
        assert re.findall(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", text) == []


@pytest.fixture(scope="module")
def client(app):
    connected = Client(app.url, verbose=False)
    yield connected
    connected.close()


def test_sweep_streams_the_rows_of_the_command_line(client):
    """What is left out, a row for each run that has ended, and the best of each optimizer."""
    axes = ["optimizer=sgd,adam", "momentum=0.5,0.9", "seed=0,1"]
    rows = list(client.submit(SHARED, axes, api_name="/sweep"))
    assert [row["event"] for row in rows] == ["refused"] * 4 + ["cell"] * 4 + ["best"]
    assert "momentum is not a setting of the optimizer adam" in rows[0]["reason"]
    cells = rows[4:8]
    assert {(row["momentum"], row["seed"], row["status"]) for row in cells} == {
        (momentum, seed, "completed") for momentum in (0.5, 0.9) for seed in (0, 1)
    }
    assert all(row["holdout_loss"] > 0 for row in cells)
    best = rows[-1]
    means = {
        momentum: sum(row["holdout_loss"] for row in cells if row["momentum"] == momentum) / 2
        for momentum in (0.5, 0.9)
    }
    assert best["momentum"] == min(means, key=means.get)
    assert best["holdout_loss"] == pytest.approx(min(means.values()))


@pytest.mark.parametrize(
    ("config", "vary", "words"),
    [
        ({}, [], "Vary at least one setting"),
        ({}, ["lr"], "name=values"),
        ({}, ["lr=1..0:3"], "larger one"),
        ({"lrr": 1}, ["lr=1,2"], "no setting"),
        ({}, ["lr=1e-4..1:999", "seed=1..999:999"], "a sweep has up to"),
        ({"num_images": 10**6}, ["lr=1,2"], "num_images"),
        ([], ["lr=1,2"], "must be an object"),
        ({}, [3], "must be a list of texts"),
        ({}, "lr=1,2", "must be a list of texts"),
    ],
)
def test_a_wrong_sweep_is_explained_in_one_sentence(client, config, vary, words):
    with pytest.raises(AppError, match=words):
        client.submit(config, vary, api_name="/sweep").result()


def test_a_client_that_leaves_stops_its_sweep(app, client):
    before = set(app.checkpoints.iterdir())
    job = client.submit({"epochs": 100}, ["lr=0.01,0.02", "seed=0,1"], api_name="/sweep")
    while not (new := set(app.checkpoints.iterdir()) - before) or not list(
        next(iter(new)).glob("runs/*/training.json")
    ):
        time.sleep(0.1)
    job.cancel()
    (folder,) = new
    (run,) = folder.glob("runs/*/training.json")
    end = time.monotonic() + 10
    while '"stopped"' not in run.read_text(encoding="utf-8"):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stranger_has_no_access_to_a_sweep(app, endpoints):  # noqa: F811
    """With raw requests to the tab's own handlers, which check the visitor's right themselves."""
    owner, before = new_visitor(), set(app.checkpoints.iterdir())
    assert "of 54 runs" in request(app, endpoints, "_start_sweep", owner)
    (folder,) = set(app.checkpoints.iterdir()) - before
    for visitor in (new_visitor(), None, owner.upper(), folder.name):
        assert folder.name not in request(app, endpoints, "_sweep", visitor, None, session="of-a-stranger")
        for name in ("_show_sweep", "_resume_sweep"):
            answer = request(app, endpoints, name, visitor, None, folder.name, session="of-a-stranger")
            assert "no such sweep" in answer or "not known here" in answer or "not in the list" in answer, (
                name,
                answer,
            )
        request(app, endpoints, "_stop_sweep", visitor, session="of-a-stranger")
        request(app, endpoints, "_delete_sweep", visitor, None, folder.name, session="of-a-stranger")
    assert (folder / "sweep.json").exists()
    request(app, endpoints, "_stop_sweep", owner)
