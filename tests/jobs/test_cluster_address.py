"""Where work is to run, and what is refused before any of it does."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.cli.main import main
from trainer.errors import UserError
from trainer.jobs.cluster import _share, check_place, connect


@pytest.mark.parametrize("place", ["local", "ray", "ray://head:10001", "ray://10.0.0.1:1", "ray://[::1]:10001"])
def test_a_place(place):
    assert check_place(place) == place


WRONG = ["", "Ray", "here", "ray:", "ray://", "ray://head", "ray://head:", "ray://head:0", "ray://head:port",
         "ray://head:99999", "ray://head:1/x", "http://head:10001", "head:6379", "x" * 1000]  # fmt: skip


@pytest.mark.parametrize("place", WRONG)
def test_a_wrong_place_is_one_sentence(place, capsys):
    with pytest.raises(UserError, match=r"local, ray or ray://HOST:PORT, not on '") as error:
        check_place(place)
    assert len(str(error.value)) < 200
    assert main(["sweep", "--on", place, "--vary", "lr=1,2"]) == 2
    assert capsys.readouterr().err == f"error: {error.value}\n"


def test_no_cluster_at_the_address_is_told_at_once():
    """Nothing listens at a port that was free a moment ago."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(UserError, match=f"no Ray cluster at ray://127.0.0.1:{port} .*refused"):
        connect(f"ray://127.0.0.1:{port}")
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_without_ray_a_sentence_says_what_to_install(tmp_path):
    """The same command without --on works."""
    code = "import sys; sys.modules['ray'] = None; from trainer.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [
        "sweep",
        "--vary",
        "seed=0,1",
        "--epochs",
        "1",
        "--num-images",
        "64",
        "--batch-size",
        "8",
        "--checkpoints",
        str(tmp_path),
    ]

    def run(*more):
        command = [sys.executable, "-c", code, *words, *more]
        return subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False
        )

    refused = run("--on", "ray", "--json")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: Ray is not installed")
    assert refused.stderr.endswith("pip install -r requirements-ray.txt\n")
    assert refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert run().returncode == 0


@pytest.mark.parametrize(
    ("num_gpus", "size", "share"), [(2, 1, 1), (2, 2, 1), (2, 3, 0.5), (1, 3, 0.3333), (8, 9, 0.5)]
)
def test_tasks_share_the_gpus(num_gpus, size, share):
    """Each task's share of a GPU is small enough for the requested number to run at a time; Ray counts in 1/10,000."""
    assert _share(num_gpus, size) == share
