"""A small Hub on this machine's loopback interface, so that tests use huggingface_hub and datasets unchanged.

It stores repositories in memory, with commits on main, tags, large files and access rights. It implements the endpoints
for reading a dataset, publishing, listing and loading a model, and signing in, and fails on request: see Fault. Point
HF_ENDPOINT at `Hub.endpoint` before huggingface_hub is imported, or use `point_to`; HF_HUB_DISABLE_XET=1 must be set.
"""

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import RSAKey

Files = dict[str, bytes]

LARGE = re.compile(r".*\.(safetensors|png|bin)")
OWNER, READER, STRANGER = "hf_owner_writes", "hf_owner_reads", "hf_stranger_writes"
VISITOR = "hf_oauth_visitor"  # from a login with the scope contribute-repos: may write to repos created with it

_KEY = RSAKey.generate_key(2048)


@dataclass(kw_only=True)
class Repo:
    """A repository. `commits` maps each commit on main, oldest first, to its files.

    If `files_endpoint` is set, requests for files are redirected there, as the real Hub redirects to another host.
    """

    commits: dict[str, Files] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    created_with: str = ""  # the token
    settings: dict[str, Any] = field(default_factory=dict)  # of a Space: its SDK, hardware, variables, volumes
    updated: str = "2026-01-01T00:00:00.000Z"
    files_endpoint: str | None = None

    @classmethod
    def of(cls, folder: Path, *, commit: str = "0" * 40, **facts) -> "Repo":
        """Returns a repository with one commit that holds the files of a folder."""
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return cls(
            commits={commit: {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}}, **facts
        )

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> Files:
        return self.commits[self.head]

    def commit_of(self, revision: str) -> str:
        commit = self.head if revision == "main" else self.tags.get(revision, revision)
        if commit not in self.commits:
            raise RefusedError(404, "RevisionNotFound")
        return commit

    def add(self, files: Files, title: str) -> str:
        """Adds a commit on main that holds exactly these files, and returns its hash."""
        commit = hashlib.sha1(f"{len(self.commits)} {title} {sorted(files)}".encode()).hexdigest()
        self.commits[commit] = files
        self.titles.append(title)
        return commit


@dataclass(kw_only=True)
class Fault:
    """A failure of the next `times` requests with a method and a path.

    `how` is one of:
        refuse: answer with `status`, and do not carry out the request
        lose: carry out the request, and close the connection without a body
        cut: close the connection in the middle of the body
        garble: change the end of the body
        hold: wait for `seconds`, or until `released` is set, before the request is carried out
    """

    method: str
    path: str  # a regular expression
    how: str = "refuse"
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    error: str = "Internal Error - We're working hard to fix this as soon as possible!"
    seconds: float = 0.0
    released: threading.Event = field(default_factory=threading.Event)
    times: int = 1


@dataclass(kw_only=True)
class Hub:
    """The state of the Hub.

    `repos` has the repositories by the path of their page on the real Hub (`owner/name`, `datasets/owner/name`);
    `users` has the name and role of each token. `requests`, `urls`, `tokens` and `times` record the requests.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    users: dict[str, tuple[str, str]] = field(
        default_factory=lambda: {
            OWNER: ("owner", "write"),
            READER: ("owner", "read"),
            STRANGER: ("stranger", "write"),
            VISITOR: ("visitor", "contribute"),
        }
    )
    nonces: dict[str, str] = field(default_factory=dict)  # of logins, by code
    faults: list[Fault] = field(default_factory=list)
    large: Files = field(default_factory=dict)  # by SHA-256
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)  # received in requests
    times: list[float] = field(default_factory=list)
    page_size: int = 1000
    buckets: set[str] = field(default_factory=set)
    has_trees: bool = True
    etag: str = ""  # replaces hashes, as a proxy with weak ETags might do
    pages: str = ""  # the host in the URLs of pages, if not `endpoint`

    def next_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


class RefusedError(Exception):
    """An error response of the Hub; huggingface_hub chooses its exception by the header X-Error-Code."""

    def __init__(self, status: int, code: str = "", error: str = ""):
        super().__init__(code or error)
        self.status, self.code, self.error = status, code, error or code


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answers requests at `hub.endpoint` until the with block ends."""
    with _served(_Faulty(hub, _app(hub))) as hub.endpoint:
        yield hub


def point_to(endpoint: str, monkeypatch, cache: Path | None = None) -> None:
    """Makes huggingface_hub in this process use an endpoint; `datasets` does not follow."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    if cache:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers, like a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class _Faulty:
    """ASGI middleware that records the requests and applies the faults."""

    def __init__(self, hub: Hub, app: FastAPI):
        self.hub, self.app = hub, app

    async def __call__(self, scope, receive, send):
        method, path = scope["method"], scope["path"]
        self.hub.requests.append(f"{method} {path}")
        self.hub.urls.append(f"{path}?{scope['query_string'].decode()}")
        self.hub.times.append(time.monotonic())
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode()
        if authorization.startswith("Bearer "):
            self.hub.tokens.add(authorization.removeprefix("Bearer "))
        fault = self.hub.next_fault(method, path)
        match fault.how if fault else None:
            case None:
                await self.app(scope, receive, send)
            case "refuse":
                await JSONResponse({"error": fault.error}, fault.status, fault.headers)(scope, receive, send)
            case "hold":
                end = time.monotonic() + fault.seconds
                while not fault.released.is_set() and (rest := end - time.monotonic()) > 0:
                    await asyncio.sleep(min(rest, 0.05))
                await self.app(scope, receive, send)
            case how:
                await self._spoil(how, scope, receive, send)

    async def _spoil(self, how: str, scope, receive, send) -> None:
        answer = []

        async def collect(message):
            answer.append(message)

        await self.app(scope, receive, collect)
        body = b"".join(message.get("body", b"") for message in answer[1:])
        if how == "garble":
            await send(answer[0])
            await send({"type": "http.response.body", "body": body[:-8] + bytes(255 - byte for byte in body[-8:])})
            return
        # The body is shorter than its Content-Length, so uvicorn closes the connection.
        await send({**answer[0], "headers": [*answer[0]["headers"]]})
        await send(
            {"type": "http.response.body", "body": b"" if how == "lose" else body[: len(body) // 2], "more_body": True}
        )


def _app(hub: Hub) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.exception_handler(RefusedError)
    async def refuse(request: Request, refused: RefusedError) -> Response:
        headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.error} if refused.code else {}
        return JSONResponse({"error": refused.error}, refused.status, headers=headers)

    def token_of(request: Request) -> str:
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    def who(request: Request) -> tuple[str, str]:
        token = token_of(request)
        if token and token not in hub.users:
            raise RefusedError(401, error="Invalid credentials in Authorization header")
        return hub.users.get(token, ("", ""))

    def find(request: Request, repo_id: str, *, write: bool = False) -> Repo:
        user, role = who(request)
        owner = repo_id.split("/")[-2]
        repo = hub.repos.get(repo_id)
        if repo is None or (repo.private and user != owner):
            raise RefusedError(404 if user else 401, "RepoNotFound", "Repository not found")
        may_write = role == "write" or (role == "contribute" and repo.created_with == token_of(request))
        if write and (user != owner or not may_write):
            raise RefusedError(403, error="Forbidden: you must use a write token to write to this repo")
        return repo

    def named(kind: str, owner: str, name: str) -> str:
        return f"{owner}/{name}" if kind == "models" else f"{kind}/{owner}/{name}"

    def entry(path: str, content: bytes) -> dict[str, Any]:
        result = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if LARGE.fullmatch(path):
            result["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
        return result

    def facts_of(repo_id: str, repo: Repo, commit: str) -> dict[str, Any]:
        readme = repo.commits[commit].get("README.md", b"").decode(errors="replace")
        parts = readme.split("---\n")
        card = yaml.safe_load(parts[1]) if len(parts) > 2 else {}
        return {
            "id": "/".join(repo_id.split("/")[-2:]),
            "sha": commit,
            "siblings": [{"rfilename": path} for path in repo.commits[commit]],
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "lastModified": repo.updated,
            "tags": card.get("tags", []) if isinstance(card, dict) else [],
            "cardData": card,
        }

    @app.get("/.well-known/openid-configuration")
    def provider() -> dict[str, str]:
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        return {"issuer": hub.endpoint} | {name: f"{hub.endpoint}/oauth/{path}" for name, path in paths.items()}

    @app.get("/oauth/jwks")
    def jwks() -> dict[str, Any]:
        return {"keys": [_KEY.as_dict(private=False)]}

    @app.get("/oauth/authorize")
    def authorize(redirect_uri: str, state: str, nonce: str, scope: str) -> Response:
        """Grants every login at once."""
        assert "contribute-repos" in scope.split()
        code = f"code-{len(hub.nonces)}"
        hub.nonces[code] = nonce
        return RedirectResponse(f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}code={code}&state={state}")

    @app.post("/oauth/token")
    async def token(request: Request) -> dict[str, Any]:
        form, now, (user, _) = await request.form(), int(time.time()), hub.users[VISITOR]
        claims = {"iss": hub.endpoint, "sub": user, "aud": "the-app", "iat": now, "exp": now + 3600}
        claims |= {"name": user.title(), "preferred_username": user, "profile": f"{hub.endpoint}/{user}", "picture": ""}
        signed = jwt.encode({"alg": "RS256"}, {**claims, "nonce": hub.nonces.pop(form["code"])}, _KEY)
        facts = {"scope": "openid profile contribute-repos", "token_type": "bearer", "expires_in": 3600}
        return {"access_token": VISITOR, "id_token": signed, **facts}

    @app.get("/api/whoami-v2")
    def whoami(request: Request) -> dict[str, Any]:
        user, role = who(request)
        if not user:
            raise RefusedError(401, error="Invalid username or password.")
        return {"type": "user", "name": user, "auth": {"accessToken": {"displayName": "test", "role": role}}}

    @app.post("/api/validate-yaml")
    async def validate_yaml(request: Request) -> Response:
        try:
            yaml.safe_load((await request.json())["content"].split("---\n")[1])
        except (IndexError, yaml.YAMLError) as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        (user, role), body = who(request), await request.json()
        owner = body.get("organization") or user
        if not user:
            raise RefusedError(401, error="Invalid username or password.")
        if role == "read" or user != owner:
            raise RefusedError(403, error=f"You don't have the rights to create a model under the namespace {owner}")
        repo_id = named(f"{body.get('type', 'model')}s", owner, body["name"])
        page = {"url": f"{hub.endpoint}/{repo_id}", "name": repo_id}
        if repo_id in hub.repos:
            return JSONResponse({"error": "You already created this model repo", **page}, 409)
        is_private = body.get("visibility") == "private" or bool(body.get("private"))
        repo = hub.repos[repo_id] = Repo(private=is_private, created_with=token_of(request))
        repo.settings = {"sdk": body["sdk"]} if "sdk" in body else {}
        repo.add({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit")
        return JSONResponse(page)

    @app.post("/api/buckets/{owner}/{name}")
    def create_bucket(request: Request, owner: str, name: str) -> Response:
        user, role = who(request)
        if user != owner or role != "write":
            raise RefusedError(403, error=f"You don't have the rights to create a bucket under the namespace {owner}")
        page = {"url": f"{hub.endpoint}/buckets/{owner}/{name}"}
        exists = f"{owner}/{name}" in hub.buckets
        hub.buckets.add(f"{owner}/{name}")
        return JSONResponse(page, 409 if exists else 200)

    @app.put("/api/spaces/{owner}/{name}/volumes")
    @app.post("/api/spaces/{owner}/{name}/{part}")
    async def set_up(request: Request, owner: str, name: str, part: str = "volumes") -> dict[str, Any]:
        settings, body = find(request, f"spaces/{owner}/{name}", write=True).settings, await request.json()
        if part == "variables":
            settings.setdefault("variables", {})[body["key"]] = body["value"]
            return {key: {"value": value} for key, value in settings["variables"].items()}
        settings |= {"hardware": body["flavor"]} if part == "hardware" else {"volumes": body["volumes"]}
        return {"stage": "BUILDING", "hardware": {"current": None, "requested": settings.get("hardware")}}

    @app.get("/api/models")
    def list_models(request: Request, limit: int = 1000, sort: str = "trendingScore", cursor: int = 0) -> Response:
        user, _ = who(request)
        wanted = set(request.query_params.getlist("filter"))
        models = [
            facts_of(repo_id, repo, repo.head)
            for repo_id, repo in hub.repos.items()
            if repo_id.count("/") == 1 and (not repo.private or repo_id.split("/")[0] == user)
        ]
        models = [one for one in models if isinstance(one["tags"], list) and wanted <= set(map(str, one["tags"]))]
        if sort == "lastModified":
            models.sort(key=lambda one: one["lastModified"], reverse=True)
        end = cursor + min(limit, hub.page_size)
        params = request.query_params.multi_items()
        query = "&".join(f"{key}={value}" for key, value in params if key != "cursor")
        link = f'<{hub.endpoint}/api/models?{query}&cursor={end}>; rel="next"'
        return JSONResponse(models[cursor:end], headers={"Link": link} if end < len(models) else {})

    @app.get("/api/{kind}/{owner}/{name}")
    @app.get("/api/{kind}/{owner}/{name}/revision/{revision:path}")
    def facts(request: Request, kind: str, owner: str, name: str, revision: str = "main") -> dict[str, Any]:
        repo_id = named(kind, owner, name)
        repo = find(request, repo_id)
        return facts_of(repo_id, repo, repo.commit_of(revision))

    @app.get("/api/{kind}/{owner}/{name}/refs")
    def refs(request: Request, kind: str, owner: str, name: str) -> dict[str, Any]:
        repo = find(request, named(kind, owner, name))
        return {
            "branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head}],
            "converts": [],
            "tags": [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit} for tag, commit in repo.tags.items()
            ],
        }

    @app.post("/api/{kind}/{owner}/{name}/tag/{revision:path}")
    async def tag(request: Request, kind: str, owner: str, name: str, revision: str) -> Response:
        repo, body = find(request, named(kind, owner, name), write=True), await request.json()
        if body["tag"] in repo.tags:
            raise RefusedError(409, error="Tag reference exists already")
        repo.tags[body["tag"]] = repo.commit_of(revision)
        return Response("OK")

    @app.delete("/api/{kind}/{owner}/{name}/tag/{tag:path}")
    def untag(request: Request, kind: str, owner: str, name: str, tag: str) -> Response:
        if find(request, named(kind, owner, name), write=True).tags.pop(tag, None) is None:
            raise RefusedError(404, "RevisionNotFound")
        return Response("OK")

    @app.get("/api/{kind}/{owner}/{name}/tree/{revision}")
    @app.get("/api/{kind}/{owner}/{name}/tree/{revision}/{path:path}")
    def tree(
        request: Request, kind: str, owner: str, name: str, revision: str, path: str = "", recursive: bool = False
    ) -> list[dict]:
        repo = find(request, named(kind, owner, name))
        if not hub.has_trees:
            raise RefusedError(404, error="Not found")
        files, inside = repo.commits[repo.commit_of(revision)], f"{path}/" if path else ""
        within = [file for file in files if file.startswith(inside)]
        if path and not within:
            raise RefusedError(404, "EntryNotFound")
        folders = {file[: at.start()] for file in within for at in re.finditer("/", file) if at.start() >= len(inside)}
        entries = [entry(file, files[file]) for file in within]
        entries += [{"type": "directory", "path": folder, "size": 0, "oid": git_hash(b"")} for folder in folders]
        entries = [one for one in entries if recursive or "/" not in one["path"][len(inside) :]]
        return sorted(entries, key=lambda one: one["path"])

    @app.post("/api/{kind}/{owner}/{name}/paths-info/{revision}")
    async def paths_info(request: Request, kind: str, owner: str, name: str, revision: str) -> list[dict]:
        repo = find(request, named(kind, owner, name))
        files = repo.commits[repo.commit_of(revision)]
        paths = (await request.form()).getlist("paths")
        folders = [path for path in paths if any(file.startswith(f"{path}/") for file in files)]
        entries = [entry(path, files[path]) for path in paths if path in files]
        return entries + [{"type": "directory", "path": path, "size": 0, "oid": git_hash(b"")} for path in folders]

    @app.post("/api/{kind}/{owner}/{name}/preupload/{revision}")
    async def preupload(request: Request, kind: str, owner: str, name: str, revision: str) -> dict[str, Any]:
        repo, body = find(request, named(kind, owner, name), write=True), await request.json()
        answer = []
        for file in body["files"]:
            path, known = file["path"], repo.files.get(file["path"])
            is_large = LARGE.fullmatch(path) is not None
            mode = {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            if known is not None:
                mode["oid"] = sha256(known) if is_large else git_hash(known)
            answer.append(mode)
        return {"files": answer, "commitOid": repo.head}

    @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
    @app.post("/{kind}/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(request: Request, owner: str, name: str, kind: str = "models") -> Response:
        find(request, named(kind, owner, name), write=True)
        body = await request.json()
        assert (body["operation"], body["hash_algo"]) == ("upload", "sha256")
        objects = []
        for one in body["objects"]:
            upload = {"upload": {"href": f"{hub.endpoint}/upload/{one['oid']}", "header": {}}}
            verify = {"verify": {"href": f"{hub.endpoint}/verify/{kind}/{owner}/{name}"}}
            objects.append({**one, **({} if one["oid"] in hub.large else {"actions": upload | verify})})
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    @app.put("/upload/{oid}")
    async def upload(request: Request, oid: str) -> Response:
        assert "authorization" not in request.headers  # on the real Hub this is another host
        content = await request.body()
        if sha256(content) != oid:
            raise RefusedError(400, error="The content does not match its hash")
        hub.large[oid] = content
        return Response()

    @app.post("/verify/{kind}/{owner}/{name}")
    async def verify(request: Request, kind: str, owner: str, name: str) -> Response:
        find(request, named(kind, owner, name), write=True)
        body = await request.json()
        if len(hub.large.get(body["oid"], b"")) != body["size"]:
            raise RefusedError(404, error="Not found")
        return Response()

    @app.post("/api/{kind}/{owner}/{name}/commit/{revision}")
    async def commit(request: Request, kind: str, owner: str, name: str, revision: str) -> dict[str, Any]:
        repo = find(request, named(kind, owner, name), write=True)
        header, *operations = [json.loads(line) for line in (await request.body()).splitlines()]
        parent = header["value"].get("parentCommit")
        if parent is not None and parent != repo.head:
            raise RefusedError(412, error="A commit has happened since. Please refresh and try again.")
        files = dict(repo.files)
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        oid = repo.add(files, header["value"]["summary"])
        page = f"{hub.pages or hub.endpoint}/{owner}/{name}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": page}

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        return answer(request, f"{owner}/{name}", revision, path)

    @app.api_route("/datasets/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve_of_dataset(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        return answer(request, f"datasets/{owner}/{name}", revision, path)

    def answer(request: Request, repo_id: str, revision: str, path: str) -> Response:
        repo = find(request, repo_id)
        if repo.gated and who(request)[0] != repo_id.split("/")[-2]:
            raise RefusedError(403, "GatedRepo", "Access to this model is restricted; you must have access to it")
        commit = repo.commit_of(revision)
        if path not in repo.commits[commit]:
            raise RefusedError(404, "EntryNotFound")
        content = repo.commits[commit][path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(content)}"', "Accept-Ranges": "bytes"}
        if hub.etag:
            headers["ETag"] = f'W/"{hub.etag}-{len(content)}"'
        elif LARGE.fullmatch(path):
            headers |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        if repo.files_endpoint:
            return RedirectResponse(f"{repo.files_endpoint}/{path}", 302, headers)
        status = 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
            start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[start : end + 1], 206
        # The answer to HEAD has the headers of GET; uvicorn leaves the body out.
        return Response(content, status, headers, media_type="application/octet-stream")

    return app


@contextmanager
def _served(app) -> Iterator[str]:
    """The app's URL, on a free port, until the with block ends."""
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
