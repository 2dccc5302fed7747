"""Who is let in: keys in files, read again when they change, and never in a log."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.server.errors import NotFoundError, UnauthorizedError
from mass_serve.server.serving import keys
from mass_serve.server.serving.keys import Access, KeyFile
from mass_serve.server.settings import SettingsError, load_settings
from tests.pictures import picture
from tests.server_processes import PATIENCE, RunningServer, StartServer

OPEN = ["/", "/livez", "/readyz", "/metrics", "/openapi.json", "/v2/health/live", "/v2/health/ready"]
KEYED = ["/v1/tasks", "/v1/tasks/digits", "/v2", "/v2/models", "/v2/models/auto", "/v2/models/auto/stats"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "keys"
    written.write_text("# the batch job\n first-key \n\nsecond-key\n")
    return written


@pytest.fixture
def _always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "POLL_SECONDS", 0.0)


def test_one_key_a_line_without_comments(path: Path) -> None:
    file = KeyFile(path)
    assert [file.find(key) is not None for key in ("first-key", "second-key")] == [True, True]
    for wrong in ("", "first-ke", "first-key ", "# the batch job", "First-key", "schlüssel", "\udce4"):
        assert not file.find(wrong)


@pytest.mark.usefixtures("_always_looks")
def test_a_changed_file_is_read_again(path: Path) -> None:
    file = KeyFile(path)
    path.write_text("third-key\n")
    assert file.find("third-key")
    assert not file.find("first-key")
    replacement = path.with_name("new")
    replacement.write_text("forth-key\n")  # as long as the third, and put in place as secrets are
    os.utime(replacement, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    replacement.replace(path)
    assert file.find("forth-key")
    path.write_text("")
    assert not file.find("forth-key")


@pytest.mark.usefixtures("_always_looks")
@pytest.mark.parametrize("hours", [-6, 0])
def test_a_file_that_looks_older_or_the_same_is_read_again(path: Path, hours: int) -> None:
    """The clock was set back, or whoever wrote it in place gave it back its time, as copying tools do."""
    path.write_text("first-key\n")
    file = KeyFile(path)
    before = path.stat()
    written = before.st_mtime_ns + hours * 3600 * 10**9
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # a file system's clock has its ticks
        path.write_text("third-key\n")
        os.utime(path, ns=(before.st_atime_ns, written))
    assert file.find("third-key")
    assert not file.find("first-key")


@pytest.mark.usefixtures("_always_looks")
def test_a_file_that_is_gone_leaves_the_last_keys(path: Path) -> None:
    file = KeyFile(path)
    path.unlink()
    assert file.find("first-key")
    assert not file.find("other-key")
    path.write_bytes(b"\xff\xfe")
    assert file.find("first-key")


def test_the_file_is_not_read_for_every_request(path: Path) -> None:
    file = KeyFile(path)
    path.write_text("third-key\n")
    assert file.find("first-key")


def test_a_byte_order_mark_is_no_part_of_the_first_key(path: Path) -> None:
    path.write_text("first-key\n# für alle\n", encoding="utf-8-sig")
    assert KeyFile(path).find("first-key")


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"\xff", "schlüssel".encode()])
def test_a_file_without_keys_ends_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="key file"):
        KeyFile(path)
    result = CliRunner().invoke(app, ["serve", "--port", "0", "--inference-keys-file", str(path)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_what_is_open_and_to_whom(path: Path, tmp_path: Path) -> None:
    nobody_has_keys = Access(load_settings({}))
    nobody_has_keys.require_inference([])
    with pytest.raises(NotFoundError, match="admin_keys_file"):
        nobody_has_keys.require_admin(["first-key"])
    admins = tmp_path / "admins"
    admins.write_text("admin-key")
    both = Access(load_settings({"inference_keys_file": path, "admin_keys_file": admins}))
    both.require_inference(["wrong", "first-key"])
    both.require_inference(["admin-key"])
    both.require_admin(["admin-key"])
    for refused in ([], ["wrong"]):
        with pytest.raises(UnauthorizedError):
            both.require_inference(refused)
    with pytest.raises(UnauthorizedError):
        both.require_admin(["first-key"])
    Access(load_settings({"admin_keys_file": admins})).require_inference([])


def test_a_server_with_keys(start_server: StartServer, path: Path) -> None:
    server = start_server(inference_keys_file=path)
    server.wait_until_ready()
    for url in OPEN:
        assert server.client.get(url).status_code == 200, url
    for url in KEYED:
        refused = server.client.get(url)
        assert refused.status_code == 401, url
        assert "X-API-Key" in refused.json()["error"]
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        for headers in ({"Authorization": "Bearer first-key"}, {"X-API-Key": "second-key"}):
            assert server.client.get(url, headers=headers).status_code == 200, url
    for url in ("/v1/classify", "/", "/predict", "/models/digits", "/v2/models/auto/infer"):
        assert server.client.post(url, content=picture(1)).status_code == 401, url
        assert server.client.post(url, headers={"X-API-Key": "first-ke"}, content=b"x").status_code == 401
    answered = server.client.post("/", headers={"Authorization": "Bearer first-key"}, content=picture(7))
    assert answered.json()[0]["label"] == "7"
    assert server.metric('mass_requests_total{code="401",protocol="v1"}') >= 1
    _a_refused_body_is_not_awaited(server)
    time.sleep(keys.POLL_SECONDS)
    path.write_text("third-key\n")
    assert server.client.get("/v1/tasks", headers={"X-API-Key": "third-key"}).status_code == 200
    assert server.client.get("/v1/tasks", headers={"X-API-Key": "first-key"}).status_code == 401
    assert not any(secret in server.log() for secret in ("first-ke", "second-key", "third-key"))


def _a_refused_body_is_not_awaited(server: RunningServer) -> None:
    """A stranger cannot make the server read: the answer comes before the body ends."""

    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_repository_is_closed_without_admin_keys(start_server: StartServer) -> None:
    server = start_server()
    server.wait_until_ready()
    for url in ("index", "models/digits/load", "models/digits/unload"):
        response = server.client.post(f"/v2/repository/{url}")
        assert response.status_code == 404
        assert "admin_keys_file" in response.json()["error"]
    assert "model_repository" not in server.client.get("/v2").json()["extensions"]
