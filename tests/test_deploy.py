"""Deploying a checkout as a Space: only what a Space runs, in one commit, and never over a different Space."""

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

# huggingface_hub itself causes this warning when it uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPOSITORY = Path(__file__).parents[1]
SPACE = "spaces/owner/lab"


@pytest.fixture
def hub():
    with serve(Hub()) as served:
        yield served


@pytest.fixture
def deploy(hub, monkeypatch, capsys):
    """A function that runs the command in this process: deploy("--private", token=…) -> returncode, out, err."""
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


def deploy_in_process(hub, *arguments):
    """Runs the command in a new process, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.deploy", "owner/lab", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": OWNER, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_a_checkout_becomes_a_space(hub):
    """Adds one commit with the app, its front matter and bundled checkpoints, without tests or runs; prints the URL."""
    done = deploy_in_process(hub, "--hardware", "zero-a10g", "--bucket", "owner/runs")
    assert (done.stdout, done.stderr) == (f"{hub.endpoint}/{SPACE}\n", "")
    space = hub.repos[SPACE]
    assert len(space.commits) == 2, "the Hub's initial commit and the deployed one"
    assert {
        "app.py",
        "README.md",
        "requirements.txt",
        "trainer/learning/loop.py",
        "ui/look/style.css",
        "ui/i18n/zh.json",
    } <= space.files.keys()
    assert "checkpoints/quick/model.safetensors" in space.files
    assert {name.split("/")[0] for name in space.files} <= {
        ".gitattributes", "README.md", "LICENSE", "app.py", "requirements.txt", "pyproject.toml",
        "docs", "trainer", "ui", "checkpoints",
    }  # fmt: skip
    runs = {name.split("/")[1] for name in space.files if name.startswith("checkpoints/")}
    assert runs <= {"quick", "fast", "race.json", "sweep.json", "lessons.json"}
    assert not [name for name in space.files if "__pycache__" in name]
    assert space.files["app.py"] == (REPOSITORY / "app.py").read_bytes()
    assert space.settings == {
        "sdk": "gradio",
        "hardware": "zero-a10g",
        "variables": {"OPTIMIZER_LAB_CHECKPOINTS": "/data/runs"},
        "volumes": [{"type": "bucket", "source": "owner/runs", "mountPath": "/data"}],
    }
    assert hub.buckets == {"owner/runs"}


@pytest.mark.quick
def test_a_second_deployment_matches_the_checkout(hub, deploy):
    """A second deployment is one more commit that also deletes files; hardware and bucket stay unchanged."""
    deploy()
    space = hub.repos[SPACE]
    space.add({**space.files, "trainer/old.py": b"", "app.py": b"old"}, "by hand")
    assert deploy().returncode == 0
    assert len(space.commits) == 4
    assert "trainer/old.py" not in space.files
    assert space.files["app.py"] == (REPOSITORY / "app.py").read_bytes()
    assert space.settings == {"sdk": "gradio"}


def test_a_public_space_does_not_pass_for_a_private_one(hub, deploy):
    """--private with a Space that is already public is an error before anything is uploaded."""
    deploy()
    done = deploy("--private")
    assert (done.returncode, done.err.count("\n")) == (2, 1)
    assert "is public already" in done.err
    assert len(hub.repos[SPACE].commits) == 2


@pytest.mark.parametrize("file", ["app.py", "Dockerfile", "index.html"])
def test_another_space_is_left_alone(hub, deploy, file):
    """A Space of another app keeps its files, whatever SDK it uses."""
    hub.repos[SPACE] = Repo()
    hub.repos[SPACE].add({file: b"other", "README.md": b"---\ntitle: Other\n---\n"}, "theirs")
    done = deploy()
    assert (done.returncode, done.err) == (2, "error: owner/lab is another Space: choose a new name.\n")
    assert hub.repos[SPACE].files[file] == b"other"


@pytest.mark.parametrize(
    ("token", "sentence"),
    [(READER, "no permission"), ("hf_wrong", "does not accept the token"), ("hf_é", "token is malformed")],
)
def test_a_token_without_the_right_is_refused(hub, deploy, token, sentence):
    """Prints one line without the token, exits with status 2, and creates no Space."""
    done = deploy(token=token)
    assert (done.returncode, done.out, done.err.count("\n")) == (2, "", 1)
    assert sentence in done.err
    assert token not in done.err
    assert hub.repos == {}


def test_the_front_matter_is_what_a_space_needs():
    """The versions match requirements.txt; a login may create repos and write to those, and nothing else."""
    front = yaml.safe_load((REPOSITORY / "README.md").read_text().split("---\n")[1])
    assert f"gradio[oauth]=={front['sdk_version']}\n" in (REPOSITORY / "requirements.txt").read_text()
    assert (front["sdk"], front["app_file"], front["hf_oauth"]) == ("gradio", "app.py", True)
    assert front["hf_oauth_scopes"] == ["contribute-repos"]
    assert "optimizer-lab" in front["tags"]
    assert len(front["short_description"]) <= 60
