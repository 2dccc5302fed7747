"""Names by which a server may be called."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from mass_serve.server.settings import SettingsError, load_settings
from mass_serve.server.web.hosts import AllowedHosts
from tests.server_processes import PATIENCE, RunningServer, running


def hosts(**settings: object) -> AllowedHosts:
    return AllowedHosts.of(load_settings(settings))


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000", "localhost."]
)
def test_loopback_names_are_allowed_by_default(name: str) -> None:
    assert hosts().allow(name)


@pytest.mark.parametrize(
    "name",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.2", "", "x@localhost", "[::2]"],
)
def test_other_names_are_not(name: str) -> None:
    assert not hosts().allow(name)


def test_what_the_server_listens_on_is_its_name_too() -> None:
    assert hosts(host="10.0.0.7").allow("10.0.0.7:8000")
    assert hosts(host="10.0.0.7").allow("localhost")
    assert hosts(host="Serve.Example").allow("serve.example")
    assert not hosts(host="10.0.0.7").allow("10.0.0.8")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_address_says_any(host: str) -> None:
    assert hosts(host=host).allow("evil.example")


def test_a_list_replaces_all_that() -> None:
    named = hosts(host="0.0.0.0", allowed_hosts="serve.example, *.internal, [2001:db8::1]")
    allowed = ("serve.example", "serve.example:80", "a.internal", "b.a.Internal:80", "[2001:db8::1]:80")
    assert [name for name in allowed if not named.allow(name)] == []
    refused = ("localhost", "internal", "a.serve.example", "evilinternal", "2001")
    assert [name for name in refused if named.allow(name)] == []


def test_a_star_is_any() -> None:
    assert hosts(allowed_hosts="*").allow("evil.example")


@pytest.mark.parametrize("wrong", ["a b", "http://x", "", "*x", "a,,b"])
def test_what_is_no_name_is_told(wrong: str) -> None:
    with pytest.raises(SettingsError, match="allowed_hosts"):
        load_settings({"allowed_hosts": wrong})


def test_they_may_come_from_a_variable_or_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASS_ALLOWED_HOSTS", "a,b")
    assert load_settings({}).allowed_hosts == ("a", "b")
    assert load_settings({"allowed_hosts": ["c"]}).allowed_hosts == ("c",)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running(0.0, {"allowed_hosts": "localhost,127.0.0.1"}) as made:
        made.wait_until_ready()
        yield made


@pytest.mark.parametrize("path", ["/", "/livez/", "/metrics", "/v1/tasks", "/v2/health", "/nothing"])
def test_a_wrong_name_gets_a_421_that_names_the_setting(server: RunningServer, path: str) -> None:
    response = server.client.get(path, headers={"Host": "evil.example"})
    assert response.status_code == 421
    assert "allowed_hosts" in response.json()["error"]
    assert "evil.example" in response.json()["error"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"])
def test_an_orchestrator_may_ask_for_health_by_any_name(server: RunningServer, path: str) -> None:
    for method in ("GET", "HEAD"):
        response = server.client.request(method, path, headers={"Host": "10.1.2.3:8000"})
        assert response.status_code == 200


def test_the_page_works_by_a_right_name(server: RunningServer) -> None:
    response = httpx.get(f"http://127.0.0.1:{server.port}/", headers={"Host": f"localhost:{server.port}"})
    assert response.status_code == 200
    assert "<html" in response.text


def raw(server: RunningServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_http_1_0_needs_no_name(server: RunningServer) -> None:
    assert raw(server, b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_target_that_names_another_server_is_refused(server: RunningServer) -> None:
    ask = b"GET http://evil.example/v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert raw(server, ask).startswith(b"HTTP/1.1 421 ")
    assert not raw(server, ask.replace(b"evil.example", b"localhost:80")).startswith(b"HTTP/1.1 421 ")
