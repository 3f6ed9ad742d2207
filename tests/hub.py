"""A small Hub on this machine's loopback, so that tests go through huggingface_hub and datasets as they are.

It knows what reading a dataset takes: a repository's facts, its tree, facts of single paths, and its files, whole or
in part. Point HF_ENDPOINT at `Hub.endpoint` before huggingface_hub is imported, and set HF_HUB_DISABLE_XET=1.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse


@dataclass(frozen=True, kw_only=True)
class Repo:
    """A repository with one commit: the files of a folder.

    They are handed out by `files_endpoint`, where one is given, as the real Hub refers to another host for them.
    """

    folder: Path
    commit: str
    files_endpoint: str | None = None

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def entry(self, path: str) -> dict[str, Any]:
        """What the Hub's tree says of a file or a folder."""
        if (self.folder / path).is_dir():
            return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
        content = (self.folder / path).read_bytes()
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@dataclass(kw_only=True)
class Hub:
    """Its repositories, by the path of their pages on the real Hub (`datasets/owner/name`), and what it was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)


class RefusedError(Exception):
    """An error as the Hub gives it: huggingface_hub tells what is missing by the header X-Error-Code."""

    def __init__(self, code: str):
        super().__init__(code)
        self.code = code


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """The hub, answering at hub.endpoint until the with block ends."""
    with _served(_app(hub)) as hub.endpoint:
        yield hub


@contextmanager
def swallow() -> Iterator[str]:
    """The address of a server that takes connections and never says a word, like a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _app(hub: Hub) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def remember(request: Request, call_next):
        hub.requests.append(f"{request.method} {request.url.path}")
        return await call_next(request)

    @app.exception_handler(RefusedError)
    async def refuse(request: Request, refused: RefusedError) -> Response:
        return JSONResponse({"error": refused.code}, 404, headers={"X-Error-Code": refused.code})

    def find(kind: str, owner: str, name: str, revision: str) -> Repo:
        repo = hub.repos.get(f"{kind}/{owner}/{name}")
        if repo is None:
            raise RefusedError("RepoNotFound")
        if revision not in ("main", repo.commit):
            raise RefusedError("RevisionNotFound")
        return repo

    @app.get("/api/{kind}/{owner}/{name}")
    @app.get("/api/{kind}/{owner}/{name}/revision/{revision:path}")
    def facts(kind: str, owner: str, name: str, revision: str = "main") -> dict[str, Any]:
        repo = find(kind, owner, name, revision)
        siblings = [{"rfilename": path} for path in repo.files()]
        return {"id": f"{owner}/{name}", "sha": repo.commit, "siblings": siblings, "private": False, "gated": False}

    @app.get("/api/{kind}/{owner}/{name}/tree/{revision}")
    @app.get("/api/{kind}/{owner}/{name}/tree/{revision}/{path:path}")
    def tree(kind: str, owner: str, name: str, revision: str, path: str = "", recursive: bool = False) -> list[dict]:
        repo = find(kind, owner, name, revision)
        if not (repo.folder / path).is_dir():
            raise RefusedError("EntryNotFound")
        inside = (repo.folder / path).rglob("*") if recursive else (repo.folder / path).iterdir()
        return [repo.entry(entry.relative_to(repo.folder).as_posix()) for entry in sorted(inside)]

    @app.post("/api/{kind}/{owner}/{name}/paths-info/{revision}")
    async def paths_info(kind: str, owner: str, name: str, revision: str, request: Request) -> list[dict]:
        repo = find(kind, owner, name, revision)
        paths = (await request.form()).getlist("paths")
        return [repo.entry(path) for path in paths if (repo.folder / path).exists()]

    @app.api_route("/{kind}/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve(kind: str, owner: str, name: str, revision: str, path: str) -> Response:
        repo = find(kind, owner, name, revision)
        if path not in repo.files():
            raise RefusedError("EntryNotFound")
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{repo.entry(path)["oid"]}"'}
        if repo.files_endpoint:
            return RedirectResponse(f"{repo.files_endpoint}/{path}", 302, headers)
        return FileResponse(repo.folder / path, headers=headers)

    return app


@contextmanager
def _served(app: FastAPI) -> Iterator[str]:
    """The app's address, on a free port, until the with block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
