"""A Hub on loopback: as much of its protocol as the real client speaks with models and data sets, and its failures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_SecretOfTheTests"
USER = "tester"
_LARGE = (".safetensors", ".parquet", ".png")


@dataclass
class Repo:
    """Commits and branches: sha -> files, name -> sha."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]]:
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise _RefusalError(404, "RevisionNotFound")
        return sha, self.commits[sha]

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        sha = hashlib.sha1(f"{branch}{len(self.commits)}{message}".encode()).hexdigest()
        before = self.commits.get(self.branches.get(branch, ""), {})
        self.commits[sha] = {**before, **files}
        self.branches[branch] = sha
        self.messages.append(message)
        return sha


@dataclass
class Fault:
    """What happens instead of an answer to requests that match.

    Attributes:
        pattern: searched in "METHOD path".
        status: to answer with; 0 to send half of the body and break off, -1 not to answer at all.
        headers: of the answer.
        times: how often.
    """

    pattern: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1000


class HubServer(ThreadingHTTPServer):
    """The server, what it holds, what it was asked and how it fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: list[Fault] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, repo: str, files: dict[str, bytes], repo_type: str = "model", **fields: Any) -> str:
        """Put a repository there without a push; returns the commit."""
        made = self.repos.setdefault(f"{repo_type}s/{repo}", Repo(**fields))
        return made.commit("main", files)

    def asked(self, pattern: str) -> list[str]:
        """Requests that match, as "METHOD path [range]"."""
        return [line for line in self.log if re.search(pattern, line)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no error of the server's."""


@contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _RefusalError(Exception):
    """An answer that is an error, with the Hub's own word for it."""

    def __init__(self, status: int, code: str = "", body: Any = None, **headers: str) -> None:
        super().__init__(status)
        self.status, self.body = status, json.dumps(body or {}).encode()
        self.headers = {**({"X-Error-Code": code} if code else {}), **headers}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: the log is the server's."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.server.log.append(f"{line} {self.headers.get('Range', '')}".strip())
        body = self._body()
        fault = next(
            (fault for fault in self.server.faults if fault.times > 0 and re.search(fault.pattern, line)), None
        )
        if fault is not None:
            fault.times -= 1
            if fault.status > 0:
                self._send(fault.status, b"{}", fault.headers)
                return
            if fault.status < 0:
                self.server.released.wait(20)
                self.close_connection = True
                return
        try:
            self._send(*self._route(path, body), breaks=fault is not None)
        except _RefusalError as refusal:
            self._send(refusal.status, refusal.body, refusal.headers)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names are http.server's

    def _route(self, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        for method, pattern, answer in _ROUTES:
            if self.command in method.split("|") and (found := re.fullmatch(pattern, path)):
                value = answer(self, body, **found.groupdict())
                return value if isinstance(value, tuple) else (200, json.dumps(value).encode(), {})
        raise _RefusalError(404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, body: bytes, headers: dict[str, str], breaks: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if breaks else body)
        if breaks:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, key: str) -> Repo:
        repo = self.server.repos.get(key)
        if repo is None or (repo.private and not self._known):
            raise _RefusalError(404 if self._known else 401, "RepoNotFound")
        if repo.gated:
            raise _RefusalError(403, "GatedRepo")
        return repo

    def whoami(self, body: bytes) -> Any:
        if not self._known:
            raise _RefusalError(401, **{"X-Error-Message": "Invalid credentials in Authorization header"})
        return {"type": "user", "name": USER, "orgs": [{"name": "group"}]}

    def validate(self, body: bytes) -> Any:
        return {"errors": [], "warnings": []}

    def create(self, body: bytes) -> Any:
        asked = json.loads(body)
        kind, name = asked.get("type", "model"), f"{asked.get('organization') or USER}/{asked['name']}"
        answer = {"url": f"{self.server.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"}
        if f"{kind}s/{name}" in self.server.repos:
            raise _RefusalError(409, body=answer)
        self.server.repos[f"{kind}s/{name}"] = repo = Repo(asked.get("visibility") == "private")
        repo.commit("main", {".gitattributes": b""})
        return answer

    def info(self, body: bytes, key: str, revision: str = "main") -> Any:
        repo = self._repo(key)
        sha, _ = repo.files(revision)
        return {"id": key.partition("/")[2], "sha": sha, "private": repo.private, "siblings": []}

    def tree(self, body: bytes, key: str, revision: str) -> Any:
        _, files = self._repo(key).files(revision)
        return [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in files.items()
        ]

    def branch(self, body: bytes, key: str, revision: str) -> Any:
        repo = self._repo(key)
        if revision in repo.branches:
            raise _RefusalError(409)
        repo.branches[revision] = repo.branches["main"]
        return {}

    def preupload(self, body: bytes, key: str, revision: str) -> Any:
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {name: "lfs" if name.endswith(_LARGE) else "regular" for name in names}
        return {"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in names]}

    def batch(self, body: bytes, key: str) -> Any:
        objects = [
            # What is there already is to be sent by nobody.
            asked
            if asked["oid"] in self.server.objects
            else {**asked, "actions": {"upload": {"href": f"{self.server.url}/objects/{asked['oid']}"}}}
            for asked in json.loads(body)["objects"]
        ]
        return {"objects": objects, "transfer": "basic"}

    def put(self, body: bytes, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _RefusalError(400)
        self.server.objects[oid] = body
        return {}

    def commit(self, body: bytes, key: str, revision: str) -> Any:
        repo, files, message = self._repo(key), {}, ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        sha, place = repo.commit(revision, files, message), key.removeprefix("models/")
        return {"commitUrl": f"{self.server.url}/{place}/commit/{sha}", "commitOid": sha, "pullRequestUrl": None}

    def resolve(self, body: bytes, repo: str, revision: str, file: str, kind: str | None) -> Any:
        sha, files = self._repo(f"{kind or 'models'}/{repo}").files(revision)
        if file not in files:
            raise _RefusalError(404, "EntryNotFound", **{"X-Repo-Commit": sha})
        data, status = files[file], 200
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        return status, data, headers


_KEY = r"/api/(?P<key>(?:models|datasets)/[^/]+/[^/]+)"
_REPO = r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", "/api/repos/create", _Handler.create),
    ("GET", _KEY, _Handler.info),
    ("GET", _KEY + "/revision/(?P<revision>.+)", _Handler.info),
    ("GET", _KEY + "/tree/(?P<revision>[^/]+)/?", _Handler.tree),
    ("POST", _KEY + "/branch/(?P<revision>.+)", _Handler.branch),
    ("POST", _KEY + "/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", _KEY + "/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", "/(?P<key>.+)\\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/objects/(?P<oid>[0-9a-f]+)", _Handler.put),
    ("GET|HEAD", _REPO + "/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.resolve),
)
