"""Publishing from the page in a real browser, to a local Hub that fails on request."""

import json
import re

import pytest

from tests.e2e.test_page import status_says, visit
from tests.fake_hub import OWNER, VISITOR, Fault, Hub, serve

LINK = "/?optimizer=adam&lr=0.001&scheduler=constant&epochs=2&num_images=512"
RACE = "&race=lr%3D0.01%26num_images%3D512%26epochs%3D1%3Blr%3D0.1%26num_images%3D512%26epochs%3D1"
COMMIT = "/commit/"


@pytest.fixture(scope="module")
def served():
    with serve(Hub()) as hub:
        yield hub


@pytest.fixture
def hub(served):
    """An empty Hub without recorded requests; no URL that it then receives may hold a token."""
    for records in (served.repos, served.faults, served.requests, served.urls, served.tokens):
        records.clear()
    yield served
    served.faults.clear()
    assert not any("hf_" in url for url in served.urls)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder where huggingface_hub stores the local user's token."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def local(served, home, launched, tmp_path_factory):
    """The app as a local user runs it."""
    with launched(tmp_path_factory.mktemp("runs"), HF_ENDPOINT=served.endpoint, HF_HOME=str(home)) as app:
        yield app


@pytest.fixture(scope="module")
def space(served, launched, tmp_path_factory):
    """The app as a Space with a login runs it, with its owner's token in the environment."""
    login = {
        "OAUTH_CLIENT_ID": "the-app",
        "OAUTH_CLIENT_SECRET": "the-apps-secret",
        "OAUTH_SCOPES": "openid profile contribute-repos",
        "OPENID_PROVIDER_URL": served.endpoint,
    }
    settings = {"SYSTEM": "spaces", "SPACE_ID": "owner/lab", "HF_TOKEN": OWNER, "GRADIO_SERVER_NAME": "127.0.0.1"}
    runs, home = tmp_path_factory.mktemp("runs"), str(tmp_path_factory.mktemp("home"))
    with launched(runs, HF_ENDPOINT=served.endpoint, HF_HOME=home, **settings, **login) as app:
        yield app


@pytest.fixture
def page(new_page):
    """The page of a new visitor, on which no token may appear."""
    yield new_page
    assert "hf_o" not in new_page.content()


def train(page, url):
    visit(page, url)
    page.wait_for_function("document.querySelector('#setting-lr input').value === '0.001'")
    page.click("#train")
    status_says(page, "^(Done|完成)")


def open_panel(page):
    page.click("#publishing > button")


def can_publish(page):
    page.wait_for_selector("#publish:not([disabled])")


def repo_id(page) -> str:
    page.wait_for_function("/.[/]optimizer-lab-/.test(document.querySelector('#repo-id :is(input, textarea)').value)")
    return page.locator("#repo-id :is(input, textarea)").input_value()


def wait_for_status(page, pattern) -> str:
    """Waits until the status of the publication matches, and returns it."""
    page.wait_for_function(
        "pattern => new RegExp(pattern).test(document.querySelector('#publish-status').innerText)",
        arg=pattern,
    )
    return page.locator("#publish-status").inner_text()


def is_complete(repo, epochs) -> bool:
    """Whether a repo has exactly these epochs, each in one tagged commit and in order."""
    titles = ["initial commit", *(f"Epoch {epoch}" for epoch in epochs)]
    tags = {f"epoch-{epoch:04d}": commit for epoch, commit in zip(epochs, list(repo.commits)[1:], strict=False)}
    return (repo.titles, repo.tags) == (titles, tags)


def classify_with(page, name, pattern):
    """Classifies a test picture with a network on the Hub, and waits until the answer matches."""
    page.click("[role=tab][data-tab-id=classify]")
    page.fill("#checkpoint input", name)
    page.press("#checkpoint input", "Enter")
    page.locator("#samples button:has(img)").first.click()
    page.wait_for_function(
        "pattern => new RegExp(pattern).test(document.querySelector('#says').innerText)", arg=pattern
    )
    page.get_by_role("tab", name="Train").click()


def come_back(page, button, address):
    """Presses a button that leads to the Hub and back to the page at `address`."""
    with page.expect_navigation(url=address):
        page.click(button)
    page.wait_for_selector("#loss svg")
    status_says(page, "^Done")
    open_panel(page)


def test_a_run_is_published_through_trouble(hub, home, local, page, screenshots):
    """Errors are explained in a sentence and waits in seconds; at the end there is a link, and no epoch twice."""
    (home / "token").write_text(OWNER)
    train(page, local.url + LINK)
    open_panel(page)
    page.wait_for_selector("#publishing-says >> text=Signed in as owner.")
    can_publish(page)
    name = repo_id(page)
    assert re.fullmatch("owner/optimizer-lab-adam-[0-9a-f]{4}", name)
    page.fill("#repo-id :is(input, textarea)", "owner/a b")
    page.click("#publish")
    wait_for_status(page, "Not published[^]*'owner/a b' is not the name of a repo")
    page.fill("#repo-id :is(input, textarea)", name)
    hub.faults = [Fault(method="POST", path=COMMIT, status=403, times=99)]
    page.click("#publish")
    wait_for_status(page, "Not published[^]*The token has no permission to do this with")
    assert hub.repos[name].titles == ["initial commit"]

    page.click("#private input")
    page.click("#publish")
    wait_for_status(page, "is public already; publish to a new repo")
    page.click("#private input")
    hub.faults = [
        Fault(method="POST", path=COMMIT, status=500),
        Fault(method="POST", path=COMMIT, status=429, headers={"Retry-After": "3"}),
        Fault(method="POST", path=COMMIT, how="lose"),
    ]
    page.click("#publish")
    wait_for_status(page, r"Publishing[^]*Retrying in \d s")
    assert not page.locator("#publish").is_enabled()
    wait_for_status(page, r"left$")
    wait_for_status(page, "^Published")
    assert page.locator("#publish-status a").get_attribute("href") == f"{hub.endpoint}/{name}"
    assert is_complete(hub.repos[name], [0, 1, 2])
    page.locator("#publishing").screenshot(path=screenshots / "published.png")

    can_publish(page)
    page.click("#publish")
    wait_for_status(page, "^Publishing")
    wait_for_status(page, "^Published")
    assert is_complete(hub.repos[name], [0, 1, 2])


def test_leaving_the_page_breaks_nothing(hub, home, local, page):
    """Training goes on while a run is published. A page left within a commit leaves a complete state, and a new page
    publishes the rest."""
    (home / "token").write_text(OWNER)
    train(page, local.url + LINK)
    open_panel(page)
    can_publish(page)
    name = repo_id(page)
    hub.faults = [Fault(method="POST", path=f"{COMMIT}main", how="hold", seconds=6)]
    page.click("#publish")
    wait_for_status(page, "Publishing epoch 0")
    page.click("#train")
    status_says(page, "^Training")
    status_says(page, "^Done")
    wait_for_status(page, "^Published")
    assert is_complete(hub.repos[name], [0, 1, 2])

    hub.faults = [Fault(method="POST", path=f"{COMMIT}main", how="hold", seconds=3)]
    page.wait_for_function("name => document.querySelector('#repo-id :is(input, textarea)').value !== name", arg=name)
    second = repo_id(page)
    can_publish(page)
    page.click("#publish")
    wait_for_status(page, "Publishing epoch 0")
    page.reload()
    visit(page, local.url + LINK)
    status_says(page, "^Done")
    open_panel(page)
    can_publish(page)
    assert repo_id(page) == second
    assert hub.repos[second].titles in (["initial commit"], ["initial commit", "Epoch 0"])
    for _ in range(3):  # the interrupted commit may arrive at this moment
        page.click("#publish")
        if wait_for_status(page, "^(Published|Not published)").startswith("Published"):
            break
    assert is_complete(hub.repos[second], [0, 1, 2])


def test_any_run_of_a_race_can_be_published(hub, home, local, page):
    """Each run is suggested a repo of its own, and a name that the visitor typed stays."""
    (home / "token").write_text(OWNER)
    visit(page, local.url + LINK + RACE)
    page.wait_for_selector("#race >> text=lr 0.1")
    page.click("#start-race")
    status_says(page, "^Done")
    open_panel(page)
    can_publish(page)
    first = repo_id(page)
    page.locator("#publish-run input").click()
    page.get_by_role("option").nth(1).click()
    page.wait_for_function("name => document.querySelector('#repo-id :is(input, textarea)').value !== name", arg=first)
    second = repo_id(page)
    page.click("#publish")
    wait_for_status(page, "^Published")
    assert list(hub.repos) == [second]
    settings = json.loads(hub.repos[second].files["training.json"])["config"]
    assert (settings["lr"], settings["epochs"]) == (0.1, 1)
    page.fill("#repo-id :is(input, textarea)", "owner/mine")
    page.locator("#publish-run input").click()
    page.get_by_role("option").first.click()
    page.click("#publish")
    wait_for_status(page, "owner/mine")
    assert json.loads(hub.repos["owner/mine"].files["training.json"])["config"]["lr"] == 0.01


def test_a_missing_or_wrong_token_is_explained(hub, home, local, page):
    """The button is disabled; one of the sentences is also checked in Chinese."""
    train(page, local.url + LINK)
    for token, language, sentence in (
        ("", "en", "To publish, run hf auth login or set HF_TOKEN"),
        ("", "zh", "请运行 hf auth login"),
        ("hf_nobody", "en", "The Hub does not accept the token: log in again."),
        ("hf_née", "en", "The token is malformed"),
    ):
        (home / "token").write_text(token)
        page.goto(f"{local.url}/?lang={language}")
        page.wait_for_selector("#loss svg")
        open_panel(page)
        page.wait_for_selector(f"#publishing-says >> text={sentence}")
        assert not page.locator("#publish").is_enabled()
    assert hub.repos == {}


def test_on_a_space_only_the_visitors_own_token_is_used(hub, space, page, screenshots):
    """Nothing can be published before the visitor signs in, even with a manipulated page, and then only under the
    visitor's name. The owner's token in the environment is never sent to the Hub."""
    train(page, space.url + LINK)
    open_panel(page)
    page.wait_for_selector("#publishing-says >> text=Sign in with Hugging Face first")
    assert not page.locator("#publish").is_enabled()
    page.fill("#repo-id :is(input, textarea)", "owner/stolen")
    page.eval_on_selector("#publish", "button => button.removeAttribute('disabled')")
    page.click("#publish")
    wait_for_status(page, "Not published[^]*Sign in with Hugging Face first")
    assert (hub.repos, hub.tokens) == ({}, set())

    page.locator("#publishing").screenshot(path=screenshots / "sign-in.png")
    address = page.url
    come_back(page, "#sign-in", address)
    page.wait_for_selector("#publishing-says >> text=Signed in as visitor.")
    page.wait_for_selector("#publishing-says >> text=the repos that it has created for you")
    can_publish(page)
    name = repo_id(page)
    assert name.startswith("visitor/")
    page.check("#private input")
    page.click("#publish")
    wait_for_status(page, "^Published")
    assert is_complete(hub.repos[name], [0, 1, 2])
    assert hub.repos[name].private
    page.locator("#publishing").screenshot(path=screenshots / "signed-in.png")
    classify_with(page, name, "It (says|is not sure)")
    assert hub.tokens == {VISITOR}

    come_back(page, "#sign-out", address)
    page.wait_for_selector("#publishing-says >> text=Sign in with Hugging Face first")
    classify_with(page, name, "private")
