"""Who is let in: keys in files, read again when they change, and never in a log."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.server.errors import NotFoundError, UnauthorizedError, WrongKeyError
from mass_serve.server.serving import keys
from mass_serve.server.serving.caller import Caller
from mass_serve.server.serving.keys import Access, KeyFile, KeyLineError, parse_keys
from mass_serve.server.settings import SettingsError, load_settings
from tests.pictures import picture
from tests.server_processes import PATIENCE, RunningServer, StartServer

OPEN = ["/", "/livez", "/readyz", "/metrics", "/openapi.json", "/v2/health/live", "/v2/health/ready"]
KEYED = ["/v1/tasks", "/v1/tasks/digits", "/v2", "/v2/models", "/v2/models/auto", "/v2/models/auto/stats"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "keys"
    written.write_text("# the batch job\n first-key \n\nsecond-key\n")
    written.chmod(0o600)
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


def test_a_key_says_who_calls_and_what_they_may_do() -> None:
    plain, named, rich, bounded, free = parse_keys(
        "first-key\nsecond-key   name=team-a\n\tthird-key share=0.5\tpriority=1 name=B_1.x \n"
        "forth-key rate=2.5 name=c\nfifth-key rate=none name=d\n"
    )
    digest = hashlib.sha256(b"first-key").hexdigest()[:8]
    assert plain.caller == Caller(f"key:key-{digest}", f"key-{digest}", 2, 1.0)
    assert named.caller == Caller("key:team-a", "team-a", 2, 1.0)
    assert rich.caller == Caller("key:B_1.x", "B_1.x", 1, 0.5)
    assert (bounded.caller.rate, free.caller.rate, rich.caller.rate) == (2.5, None, None)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("k-secret nam=x", "name=..., priority=..., share=... and rate=..."),
        ("k-secret name", "a name has 1 to 64"),
        ("k-secret secret-too", "name=..., priority=..., share=... and rate=..."),
        ("k-secret name=a name=b", "each once"),
        ("k-secret name=", "a name has 1 to 64"),
        ("k-secret name=a/b", "a name has 1 to 64"),
        ("k-secret name=" + "x" * 65, "a name has 1 to 64"),
        ("k-secret priority=0", "priority must be a whole number of 1"),
        ("k-secret priority=1.5", "priority must be a whole number of 1"),
        ("k-secret priority=-1", "priority must be a whole number of 1"),
        ("k-secret priority=10000", "to 9999"),
        ("k-secret share=0", "share must be a number above 0"),
        ("k-secret share=0.0", "share must be a number above 0"),
        ("k-secret share=nan", "share must be a number above 0"),
        ("k-secret share=-1", "share must be a number above 0"),
        ("k-secret share=10000", "below 10000"),
        ("k-secret rate=0", "rate must be a number above 0"),
        ("k-secret rate=", "rate must be a number above 0"),
        ("k-secret rate=1000000", "below 1000000"),
        ("k-secret name=team", "another key has this name"),
        ("first-secret", "write each key once"),
    ],
)
def test_a_line_that_is_not_as_it_should_be_is_named_and_not_shown(line: str, says: str) -> None:
    with pytest.raises(KeyLineError, match=r"^line 3: ") as caught:
        parse_keys(f"# keys\nfirst-secret name=team\n{line}\n")
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "attributes", ["priority=9999 share=9999.9999 rate=999999.9999", "name=" + "x" * 64, "priority=1"]
)
def test_the_largest_values_are_taken(attributes: str) -> None:
    assert len(parse_keys(f"a-key {attributes}")) == 1


@pytest.mark.usefixtures("_always_looks")
def test_a_mistake_in_a_line_ends_the_start_and_leaves_the_last_keys(path: Path) -> None:
    file = KeyFile(path)
    path.write_text("first-key prio=1\n")
    with capture_logs() as logs:
        assert file.find("second-key") is not None
    [line] = logs
    assert (line["log_level"], line["file"]) == ("error", str(path))
    assert line["error"].startswith("line 1: ")
    with pytest.raises(SettingsError, match="line 1: behind a key"):
        KeyFile(path)


@pytest.mark.usefixtures("_always_looks")
def test_a_file_that_others_may_read_is_warned_of_once_a_change(path: Path) -> None:
    path.chmod(0o640)
    with capture_logs() as logs:
        file = KeyFile(path)
        file.find("first-key")
    assert logs == []
    path.chmod(0o644)
    with capture_logs() as logs:
        for _ in range(3):
            file.find("first-key")
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    assert "others may read the key file" in logs[0]["event"]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(SettingsError, match="cannot be read: it is a FIFO, and only regular files are read"):
        KeyFile(tmp_path / "keys")


@pytest.mark.usefixtures("_always_looks")
def test_a_pipe_that_takes_the_place_of_a_file_leaves_the_last_keys(path: Path) -> None:
    file = KeyFile(path)
    path.unlink()
    os.mkfifo(path)
    with capture_logs() as logs:
        assert file.find("first-key")
    assert [(line["log_level"], line["error"]) for line in logs] == [
        ("error", "it is a FIFO, and only regular files are read")
    ]


@pytest.mark.usefixtures("_always_looks")
def test_a_file_that_becomes_shorter_while_it_is_read_leaves_the_last_keys(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = KeyFile(path)
    path.write_text("third-key\n")
    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(os, "preadv", lambda *_: 0)
        assert file.find("first-key")
        assert not file.find("third-key")
    assert logs[0]["error"] == "the file has become shorter"
    assert file.find("third-key"), "it is read again"


def test_many_keys_are_read_and_found_at_once(path: Path) -> None:
    """Comparing each with each would take 20,000 of them a minute, and hold the event loop for as long."""
    path.write_text("".join(f"key-{n} name=n{n}\n" for n in range(20_000)))
    started = time.process_time()
    file = KeyFile(path)
    callers = [file.find(f"key-{n}") for n in range(0, 20_000, 4)]
    assert time.process_time() - started < 5.0
    assert [caller and caller.name for caller in callers] == [f"key:n{n}" for n in range(0, 20_000, 4)]


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
    assert nobody_has_keys.require_inference(["any"]) is None
    with pytest.raises(NotFoundError, match="admin_keys_file"):
        nobody_has_keys.require_admin(["first-key"])
    admins = tmp_path / "admins"
    admins.write_text("admin-key")
    both = Access(load_settings({"inference_keys_file": path, "admin_keys_file": admins}))
    assert named(both.require_inference(["wrong", "first-key"])) == "first-key"
    assert named(both.require_inference(["admin-key"])) == "admin-key"
    assert named(both.require_admin(["wrong", "admin-key"])) == "admin-key"
    for require in (both.require_inference, both.require_admin):
        with pytest.raises(UnauthorizedError) as caught:
            require([])
        assert not isinstance(caught.value, WrongKeyError)
        with pytest.raises(WrongKeyError):
            require(["wrong"])
    with pytest.raises(UnauthorizedError) as caught:
        both.require_admin(["first-key"])
    assert not isinstance(caught.value, WrongKeyError), "a right key, in the wrong place, is no guess"
    only_admins = Access(load_settings({"admin_keys_file": admins}))
    assert only_admins.require_inference([]) is None
    assert only_admins.require_inference(["wrong"]) is None
    assert named(only_admins.require_inference(["admin-key"])) == "admin-key"


def named(caller: Caller | None) -> str | None:
    """The key that has the caller's name; the keys of the tests have names of their own only here."""
    keys = {hashlib.sha256(key.encode()).hexdigest()[:8]: key for key in ("first-key", "admin-key")}
    return None if caller is None else keys[caller.name.removeprefix("key:key-")]


def test_the_repository_is_open_where_there_are_admins(path: Path) -> None:
    assert Access(load_settings({"admin_keys_file": path})).repository_is_open is True
    assert Access(load_settings({"inference_keys_file": path})).repository_is_open is False


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
    assert server.metric("mass_wrong_keys_total") == 5
    name = "key-" + hashlib.sha256(b"first-key").hexdigest()[:8]
    assert server.metric(f'mass_key_requests_total{{key="{name}"}}') == len(KEYED) + 1
    assert server.metric('mass_key_requests_total{key="none"}') >= len(KEYED)
    assert f'"key": "{name}"' in server.log()
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
