"""A Hub on loopback: as much of its protocol as the real client speaks with models and data sets, and its failures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
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

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        sha = self.branches.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None

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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *arguments: Any) -> None:
        """Say nothing: the log is the server's."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.server.log.append(f"{line} {self.headers.get('Range', '')}".strip())
        body = self._body()
        self._breaks = False
        for fault in self.server.faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                fault.times -= 1
                if fault.status > 0:
                    return self._send(fault.status, b"{}", fault.headers)
                if fault.status < 0:
                    self.server.released.wait(20)
                    self.close_connection = True
                    return None
                self._breaks = True
        for method, pattern, answer in _ROUTES:
            if self.command in method.split("|") and (found := re.fullmatch(pattern, path)):
                return answer(self, body, **found.groupdict())
        return self._send(404, b"{}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._breaks:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, key: str) -> Repo | None:
        """The repository, or None after an answer that says why not."""
        repo = self.server.repos.get(key)
        if repo is None or (repo.private and not self._known):
            self._send(404 if self._known else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repo.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            return repo
        return None

    def whoami(self, body: bytes) -> None:
        if not self._known:
            return self._send(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        return self._json({"type": "user", "name": USER, "orgs": [{"name": "group"}]})

    def validate(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        if not self._known:
            return self._send(401, b"{}")
        asked = json.loads(body)
        kind, name = asked.get("type", "model"), f"{asked.get('organization') or USER}/{asked['name']}"
        url = f"{self.server.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"
        if f"{kind}s/{name}" in self.server.repos:
            return self._send(409, json.dumps({"url": url}).encode())
        self.server.repos[f"{kind}s/{name}"] = repo = Repo(asked.get("visibility") == "private")
        repo.commit("main", {".gitattributes": b""})
        return self._json({"url": url})

    def info(self, body: bytes, key: str, revision: str | None = None) -> None:
        if (repo := self._repo(key)) is None:
            return
        found = repo.files(revision or "main")
        if found is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        self._json({"id": key.partition("/")[2], "sha": found[0], "private": repo.private, "siblings": []})

    def tree(self, body: bytes, key: str, revision: str) -> None:
        if (repo := self._repo(key)) is None:
            return
        found = repo.files(revision)
        if found is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        self._json(
            [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in found[1].items()
            ]
        )

    def branch(self, body: bytes, key: str, revision: str) -> None:
        if (repo := self._repo(key)) is None:
            return
        if revision in repo.branches:
            return self._send(409, b"{}")
        repo.branches[revision] = repo.branches["main"]
        self._json({})

    def preupload(self, body: bytes, key: str, revision: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def batch(self, body: bytes, key: str) -> None:
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.server.url}/objects/{asked['oid']}"}}}
            for asked in json.loads(body)["objects"]
        ]
        self._json({"objects": objects, "transfer": "basic"})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, key: str, revision: str) -> None:
        if (repo := self._repo(key)) is None:
            return
        if not self._known:
            return self._send(403, b"{}")
        files, message = {}, ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        sha = repo.commit(revision, files, message)
        place = key.removeprefix("models/")
        self._json({"commitUrl": f"{self.server.url}/{place}/commit/{sha}", "commitOid": sha, "pullRequestUrl": None})

    def resolve(self, body: bytes, repo: str, revision: str, file: str, kind: str | None = None) -> None:
        found_repo = self._repo(f"{kind or 'models'}/{repo}")
        if found_repo is None:
            return
        found = found_repo.files(revision)
        if found is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        sha, files = found
        if file not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        data, status = files[file], 200
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        self._send(status, data, headers)


_KEY = r"/api/(?P<key>(?:models|datasets)/[^/]+/[^/]+)"
_REPO = r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)"
_ROUTES = (
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
