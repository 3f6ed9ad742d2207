"""A checkout becomes a Space: what a Space runs and nothing else, in one commit, never over another's Space."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from fake_hub import OWNER, READER, Hub, Repo, point_to, serve
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from scripts.deploy import main

# The client's own, of the way it hands an upload to its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPOSITORY = Path(__file__).parents[1]
SPACE = "spaces/owner/lab"


@pytest.fixture
def hub():
    with serve(Hub()) as served:
        yield served


@pytest.fixture
def deploy(hub, monkeypatch, capsys):
    """The command in this process: deploy("--private", token=…) gives its exit status and what it printed."""
    point_to(hub.endpoint, monkeypatch)
    disable_progress_bars()

    def run(*arguments, token=OWNER):
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(sys, "argv", ["scripts.deploy", "owner/lab", *arguments])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        return SimpleNamespace(returncode=status, **capsys.readouterr()._asdict())

    yield run
    enable_progress_bars()


def deploy_as_told(hub, *arguments):
    """The command as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.deploy", "owner/lab", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": OWNER, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_checkout_becomes_a_space(hub):
    """One commit with the app, its front matter and its bundled checkpoints; no tests, no runs; its page is told."""
    done = deploy_as_told(hub, "--hardware", "zero-a10g", "--bucket", "owner/runs")
    assert (done.stdout, done.stderr) == (f"{hub.endpoint}/{SPACE}\n", "")
    space = hub.repos[SPACE]
    assert len(space.commits) == 2, "the Hub's own first one, and one of ours"
    assert {
        "app.py",
        "README.md",
        "requirements.txt",
        "trainer/learning/loop.py",
        "ui/style.css",
        "ui/i18n/zh.json",
    } <= space.files.keys()
    assert "checkpoints/quick/model.safetensors" in space.files
    assert {name.split("/")[0] for name in space.files} <= {
        ".gitattributes", "README.md", "LICENSE", "app.py", "requirements.txt", "pyproject.toml",
        "docs", "trainer", "ui", "checkpoints",
    }  # fmt: skip
    runs = {name.split("/")[1] for name in space.files if name.startswith("checkpoints/")}
    assert runs <= {"quick", "fast"}
    assert not [name for name in space.files if "__pycache__" in name]
    assert space.files["app.py"] == (REPOSITORY / "app.py").read_bytes()
    assert space.settings == {
        "sdk": "gradio",
        "hardware": "zero-a10g",
        "variables": {"OPTIMIZER_LAB_CHECKPOINTS": "/data/runs"},
        "volumes": [{"type": "bucket", "source": "owner/runs", "mountPath": "/data"}],
    }
    assert hub.buckets == {"owner/runs"}


def test_deployed_again_it_holds_what_the_checkout_holds(hub, deploy):
    """What is gone here is gone there, in one more commit; hardware and bucket stay as they were."""
    deploy()
    space = hub.repos[SPACE]
    space.add({**space.files, "trainer/old.py": b"", "app.py": b"old"}, "by hand")
    assert deploy().returncode == 0
    assert len(space.commits) == 4
    assert "trainer/old.py" not in space.files
    assert space.files["app.py"] == (REPOSITORY / "app.py").read_bytes()
    assert space.settings == {"sdk": "gradio"}


def test_a_public_space_does_not_pass_for_a_private_one(hub, deploy):
    """Who asks for a private Space and has a public one is told, before anything is sent to it."""
    deploy()
    done = deploy("--private")
    assert (done.returncode, done.err.count("\n")) == (2, 1)
    assert "is public already" in done.err
    assert len(hub.repos[SPACE].commits) == 2


@pytest.mark.parametrize("file", ["app.py", "Dockerfile", "index.html"])
def test_another_space_is_left_alone(hub, deploy, file):
    """One that is not this app's keeps its files, whatever it is made of."""
    hub.repos[SPACE] = Repo()
    hub.repos[SPACE].add({file: b"other", "README.md": b"---\ntitle: Other\n---\n"}, "theirs")
    done = deploy()
    assert (done.returncode, done.err) == (2, "error: owner/lab is another Space: choose a new name.\n")
    assert hub.repos[SPACE].files[file] == b"other"


@pytest.mark.parametrize(("token", "said"), [(READER, "no right"), ("hf_wrong", "does not accept the token")])
def test_who_may_not_is_told(hub, deploy, token, said):
    """One line, exit status 2, the token in none of it, and no Space."""
    done = deploy(token=token)
    assert (done.returncode, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert token not in done.err
    assert hub.repos == {}


def test_the_front_matter_is_what_a_space_needs():
    """The versions are those of requirements.txt; a login may create repos and write to those, no more."""
    front = yaml.safe_load((REPOSITORY / "README.md").read_text().split("---\n")[1])
    assert f"gradio[oauth]=={front['sdk_version']}\n" in (REPOSITORY / "requirements.txt").read_text()
    assert (front["sdk"], front["app_file"], front["hf_oauth"]) == ("gradio", "app.py", True)
    assert front["hf_oauth_scopes"] == ["contribute-repos"]
    assert "optimizer-lab" in front["tags"]
    assert len(front["short_description"]) <= 60
