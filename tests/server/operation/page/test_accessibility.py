"""What axe-core finds in the page, and that it fits a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server.operation.page.conftest import Visit, expect
from tests.server_processes import RunningServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.optional("browser")

DESK, PHONE = {"width": 1060, "height": 820}, {"width": 360, "height": 740}


def violations(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response
    assert found["passes"], "it looked at something"
    return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_page_of_images_has_no_violation(
    visit: Visit, demo: RunningServer, size: dict[str, int], scheme: str
) -> None:
    page = visit(demo, viewport=size, color_scheme=scheme)
    assert violations(page) == []
    page.get_by_role("button", name="scribble").click()
    page.wait_for_selector("#answers .label")
    page.locator("#answers summary").last.click()
    page.locator("#tasks summary").first.click()
    assert violations(page) == []
    page.check("[value=each]")
    expect(page.locator("#answers .bars")).to_contain_text("street: ")
    assert violations(page) == []
    page.check("[value=best]")
    page.select_option("#mode", "compared")
    expect(page.locator("#answers .bars dt").first).to_contain_text("exact, ")
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_of_texts_has_no_violation(visit: Visit, text_server: RunningServer, scheme: str) -> None:
    page = visit(text_server, color_scheme=scheme)
    page.locator("#pairs summary").click()
    page.fill("#text", "Jane lives in Zürich.\nWhat is the weather?")
    page.check("#tasks [value=pii]")
    page.get_by_role("button", name="Classify").click()
    page.wait_for_selector("#answers li:nth-child(2) .label")
    assert violations(page) == []


def test_the_question_for_a_key_has_no_violation(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    page.evaluate("document.getElementById('key-dialog').showModal()")
    assert violations(page) == []


def test_nothing_is_wider_than_a_phone(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server, viewport=PHONE)
    page.fill("#text", "word " * 100 + "x" * 500)
    page.check("#tasks [value=domain]")
    page.get_by_role("button", name="Classify").click()
    page.wait_for_selector("#answers .label")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
