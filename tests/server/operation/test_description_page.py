"""The page of the description, and what is said where Swagger UI is not installed."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from mass_serve.server.app import create_app
from mass_serve.server.errors import NotFoundError
from mass_serve.server.operation.description_page import swagger_ui
from mass_serve.server.settings import load_settings
from tests.server_processes import RunningServer


@pytest.mark.optional("swagger")
def test_the_page_is_whole_and_the_servers_own(server: RunningServer) -> None:
    page = server.client.get("/docs").raise_for_status()
    assert page.headers["Content-Type"].startswith("text/html")
    assert "https:" not in page.text
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    files = [name for name in named if not name.startswith("data:")]
    assert len(files) == 3
    for file in files:
        found = server.client.get(f"/{file}").raise_for_status()
        assert found.content
        assert found.headers["Content-Type"].startswith(("text/css", "text/javascript"))
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert {source for rule in policy for source in rule.split()[1:]} == {"'none'", "'self'", "data:"}


@pytest.mark.parametrize("name", ["../page.html", "swagger-ui.js", "%2e%2e%2fsettings.py", "start.js/"])
def test_no_other_file_is_sent(server: RunningServer, name: str) -> None:
    answer = server.client.get(f"/docs/{name}")
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_what_is_missing_is_told() -> None:
    with pytest.raises(NotFoundError, match=r"mass-serve\[swagger\]"):
        swagger_ui("a_package_that_nobody_has")


def test_the_page_is_no_part_of_what_it_describes() -> None:
    paths = create_app(load_settings({}), cast(Any, None)).openapi()["paths"]
    assert not [path for path in paths if path.startswith("/docs")]
