"""Downloaded files are exactly the Hub's, whether or not the cache has symbolic links."""

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


def get(name, at_most=1 << 20, **arguments):
    return download(ID, name, at_most=at_most, **arguments)


@pytest.mark.parametrize("name", FILES)
def test_a_file_and_its_commit(hub, name):
    """The content and the commit, also of large files, for which the Hub has another kind of hash."""
    path, commit = get(name)
    assert path.read_bytes() == FILES[name]
    assert commit == hub.repos[ID].head
    hub.requests.clear()
    assert get(name, revision=commit) == (path, commit)
    assert hub.requests == []
    assert get(name, revision=commit, local_files_only=True) == (path, commit)


@pytest.mark.parametrize("revision", [None, "main", "epoch-0001"])
def test_a_revision_is_remembered_without_a_network(hub, monkeypatch, revision):
    """A branch or a tag that was downloaded by its name is found in the cache when the Hub cannot be reached."""
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
    """Without symbolic links the hash is requested from the Hub again, and a damaged copy is replaced."""
    path, commit = get(name)
    path.unlink()
    path.write_bytes(FILES[name])
    assert get(name, revision=commit).path.read_bytes() == FILES[name]
    path.write_bytes(FILES[name][::-1])
    assert get(name, revision=commit).path.read_bytes() == FILES[name]


def test_a_damaged_copy_without_a_network(hub):
    """It is refused, because it cannot be downloaded again."""
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
    """The file is checked against the hash in the server's tree or, if it has no tree, against its size."""
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


def test_a_tree_that_cannot_be_read(hub, monkeypatch):
    """The file is not accepted unchecked."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.etag = "5f3c"
    hub.faults = [Fault(method="GET", path="/tree/", status=503, times=99)]
    with pytest.raises(HfHubHTTPError, match="503"):
        get("config.json")


@pytest.mark.quick
def test_too_large(hub):
    """It is refused before the download."""
    with pytest.raises(ValueError, match=r"^model\.safetensors is larger than expected\.$"):
        get("model.safetensors", at_most=1000)
    # Once a process, and not for the file, the client asks which programs are agents.
    requests = {request for request in hub.requests if request.startswith("GET")}
    assert requests <= {"GET /api/agent-harnesses"}


def test_what_does_not_exist(hub):
    """A missing file raises a UserError; anything else the Hub's own errors."""
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


def test_a_damaged_download_is_deleted(hub, tmp_path):
    """The next call downloads the file again."""
    hub.faults = [Fault(method="GET", path="config", how="garble", times=2)]
    with pytest.raises(ValueError, match="was damaged after two downloads"):
        get("config.json")
    assert get("config.json").path.read_bytes() == FILES["config.json"]
    shutil.rmtree(tmp_path / "cache")
    assert isinstance(get("config.json").path, Path)
