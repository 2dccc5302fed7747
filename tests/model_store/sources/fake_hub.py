"""A hub on loopback that speaks what huggingface_hub asks of the real one: models API, resolve, blobs.

Headers, status codes and error codes are those that the real hub answers with: the name of a large file leads
to a blob by a redirect, small files come at once, and only the blobs' host knows of ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

_INFO = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+?)(/revision/(?P<revision>.+))?")
_FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>.+?)/(?P<file>(\d+_Pooling/)?[^/]+)")
_LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """One revision of a model's files."""

    folder: Path
    commit: str = "1" * 40
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False


@dataclass
class FakeHub:
    """What the hub has, whom it knows, how it fails, and what it was asked for."""

    url: str = ""
    blobs: str = ""  # another host, as the real hub's: a client then makes the request for the bytes itself
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)  # the tokens that may read what is gated or private
    breaks: int = 0  # so many transfers of blobs end halfway
    wrong_bytes: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range

    def fetched(self) -> list[str]:
        """The files that came over, in the order in which they were asked for first."""
        return [
            path.rpartition("/")[2]
            for method, path, _ in self.asked
            if method == "GET" and "/api/" not in path
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Keeps the tests' output for the tests."""

    def _answer(self) -> None:
        path = unquote(self.path.split("?")[0])
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path.startswith("/blobs/"):
            self._blob(path)
        elif token and token not in self.hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif found := _INFO.fullmatch(path):
            self._with_repository(found, token, self._info)
        elif found := _FILE.fullmatch(path):
            self._with_repository(found, token, self._file)
        else:
            self._refuse(404, "", "Not Found")

    def _with_repository(self, found: re.Match[str], token: str, answer: Any) -> None:
        repository = self.hub.repositories.get(found["repository"])
        if repository is None or (repository.private and token not in self.hub.members):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif (revision := found["revision"] or "main") not in (repository.commit, *repository.revisions):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            answer(found, token, repository)

    def _info(self, found: re.Match[str], _token: str, repository: Repository) -> None:
        files = sorted(
            path.relative_to(repository.folder).as_posix() for path in repository.folder.rglob("*")
        )
        name = found["repository"]
        content = {
            **{"_id": "0" * 24, "id": name, "modelId": name, "sha": repository.commit, "private": False},
            "siblings": [{"rfilename": file} for file in [".gitattributes", *files]],
        }
        self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _file(self, found: re.Match[str], token: str, repository: Repository) -> None:
        if repository.gated and token not in self.hub.members:
            return self._refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted")
        path, commit = repository.folder / found["file"], {"X-Repo-Commit": repository.commit}
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found", commit)
        content = path.read_bytes()
        if path.suffix not in _LARGE:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._send(200, {**commit, "ETag": f'"{git}"'}, content)
        digest = hashlib.sha256(content).hexdigest()
        location = f"{self.hub.blobs}/blobs/{found['repository']}/{found['file']}"
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Location": location}
        return self._send(302, {**commit, **linked}, b"")

    def _blob(self, path: str) -> None:
        _, _, owner, name, file = path.split("/")
        content = (self.hub.repositories[f"{owner}/{name}"].folder / file).read_bytes()
        if self.hub.wrong_bytes:
            content = bytes(len(content))
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        if self.hub.breaks and self.command == "GET":
            self.hub.breaks -= 1
            return self._break_off(headers, content[start:])
        return self._send(206 if start else 200, headers, content[start:])

    def _break_off(self, headers: dict[str, str], content: bytes) -> None:
        self.send_response(206 if headers else 200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def _refuse(self, status: int, code: str, text: str, more: dict[str, str] | None = None) -> None:
        headers = {"X-Error-Message": text, **({"X-Error-Code": code} if code else {}), **(more or {})}
        self._send(status, headers, json.dumps({"error": text}).encode())

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serves a hub that has nothing yet."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url, hub.blobs = (f"http://{host}:{server.server_address[1]}" for host in ("127.0.0.1", "localhost"))
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
