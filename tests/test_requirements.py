"""The requirements for people, and the lock file made from them."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LOCKED = dict(re.findall(r"(?m)^([\w.-]+)==([\w.+-]+)", (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-ray.txt", "requirements-dev.txt"])
def test_the_lock_file_has_what_is_required(name):
    """Each package, and for an exact requirement the same version; CONTRIBUTING.md says how to write it again."""
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    required = {
        package.lower().replace("_", "-"): version
        for package, version in re.findall(r"(?m)^(\w[\w.-]*)(?:\[\w+\])?(\S*)", "\n".join(lines))
    }
    assert required
    assert required.keys() - LOCKED.keys() == set()
    exact = {package: version[2:] for package, version in required.items() if version.startswith("==")}
    assert {package: LOCKED[package] for package in exact} == exact
