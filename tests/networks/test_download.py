"""A file of a repo reaches its user only as the Hub has it, with or without a cache that knows links."""

import shutil
from pathlib import Path

import pytest
from fake_hub import OWNER, Fault, Hub, Repo, point_to, serve
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from trainer.networks.download import download

ID = "owner/repo"
FILES = {"model.safetensors": bytes(range(256)) * 40, "config.json": b'{"a": 1}'}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    repo = Repo()
    repo.add(FILES, "files")
    with serve(Hub(repos={ID: repo})) as served:
        point_to(served.endpoint, monkeypatch, tmp_path / "cache")
        yield served


def get(name, at_most=1 << 20, **asked):
    return download(ID, name, at_most=at_most, **asked)


@pytest.mark.parametrize("name", FILES)
def test_a_file_and_its_commit(hub, name):
    """The content and the commit, also of large files, which the Hub knows by another hash."""
    path, commit = get(name)
    assert path.read_bytes() == FILES[name]
    assert commit == hub.repos[ID].head
    hub.requests.clear()
    assert get(name, revision=commit) == (path, commit)
    assert hub.requests == []
    assert get(name, revision=commit, local_files_only=True) == (path, commit)


@pytest.mark.parametrize("revision", [None, "main", "epoch-0001"])
def test_a_revision_is_remembered_without_a_network(hub, monkeypatch, revision):
    """A branch or a tag, once asked for by its name, is found in the cache when the Hub is not asked or not there."""
    hub.repos[ID].tags["epoch-0001"] = hub.repos[ID].head
    found = get("config.json", revision=revision)
    assert get("config.json", revision=revision, local_files_only=True) == found
    hub.faults = [Fault(method="HEAD", path="config", status=503, times=99)]
    assert get("config.json", revision=revision) == found
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert get("config.json", revision=revision) == found
    assert hub.requests == []


@pytest.mark.parametrize("name", FILES)
def test_a_cache_without_links(hub, name):
    """Where the disk knows no links the Hub is asked for the hash again, and a damaged copy is made good."""
    path, commit = get(name)
    path.unlink()
    path.write_bytes(FILES[name])
    assert get(name, revision=commit).path.read_bytes() == FILES[name]
    path.write_bytes(FILES[name][::-1])
    assert get(name, revision=commit).path.read_bytes() == FILES[name]


def test_a_damaged_copy_without_a_network(hub):
    """Refused, as it cannot be fetched again."""
    path, commit = get("config.json")
    path.resolve().write_bytes(b'{"a": 2}')
    with pytest.raises(ValueError, match=r"^config\.json of owner/repo is damaged in the cache\.$"):
        get("config.json", revision=commit, local_files_only=True)
    hub.faults = [Fault(method="HEAD", path="config", status=503, times=99)]
    with pytest.raises(OSError, match="503"):
        get("config.json", revision=commit)
    hub.faults.clear()
    assert get("config.json", revision=commit).path.read_bytes() == FILES["config.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_server_whose_etags_are_no_hashes(hub, name):
    """Its tree has the hash, and the file is held to it; where it has none, whatever has the size is taken."""
    hub.etag = "5f3c"
    assert get(name).path.read_bytes() == FILES[name]
    get(name).path.resolve().write_bytes(FILES[name][::-1])
    assert get(name).path.read_bytes() == FILES[name]
    hub.faults = [Fault(method="GET", path=f"/resolve/.*/{name}", how="garble", times=2)]
    with pytest.raises(ValueError, match="was damaged after two downloads"):
        get(name, force_download=True)
    hub.has_trees = False
    path, commit = get(name)
    assert path.read_bytes() == FILES[name]
    assert get(name, revision=commit, local_files_only=True).path == path


def test_a_tree_in_trouble(hub, monkeypatch):
    """Is no leave to take a file unchecked."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.etag = "5f3c"
    hub.faults = [Fault(method="GET", path="/tree/", status=503, times=99)]
    with pytest.raises(HfHubHTTPError, match="503"):
        get("config.json")


def test_too_large(hub):
    """Known before a byte of it is fetched."""
    with pytest.raises(ValueError, match=r"^model\.safetensors is larger than expected\.$"):
        get("model.safetensors", at_most=1000)
    assert not any(request.startswith("GET") for request in hub.requests)


def test_what_is_not_there(hub):
    """A missing file is the repo's fault, in a sentence; the rest are the Hub's own errors."""
    with pytest.raises(ValueError, match=r"^pytorch_model\.bin is missing in owner/repo\.$"):
        get("pytorch_model.bin")
    with pytest.raises(RevisionNotFoundError):
        get("config.json", revision="v9")
    hub.repos[ID].gated = True
    with pytest.raises(GatedRepoError):
        get("config.json", token=False)
    hub.repos[ID].private = True
    with pytest.raises(RepositoryNotFoundError):
        download("owner/nothing", "config.json", at_most=9, token=OWNER)


def test_nothing_is_left_of_what_arrives_damaged(hub, tmp_path):
    """The next call fetches it again, and finds it sound once it is."""
    hub.faults = [Fault(method="GET", path="config", how="garble", times=2)]
    with pytest.raises(ValueError, match="was damaged after two downloads"):
        get("config.json")
    assert get("config.json").path.read_bytes() == FILES["config.json"]
    shutil.rmtree(tmp_path / "cache")
    assert isinstance(get("config.json").path, Path)
