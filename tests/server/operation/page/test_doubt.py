"""What the page says of answers that are in doubt: the server's own answers, changed on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.operation.page.conftest import HOSTILE_LABEL, Visit, expect
from tests.server_processes import RunningServer

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.optional("browser")


def with_changed_answers(page: Page, change: Callable[[dict[str, Any]], None]) -> None:
    def answered(route: Route) -> None:
        response = route.fetch()
        body = response.json()
        for result in body["results"]:
            change(result)
        route.fulfill(response=response, json=body)

    page.route("**/v1/classify**", answered)


def test_an_input_unlike_all_is_none_of_these(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    with_changed_answers(page, lambda result: result.update(unrouted=True))
    page.get_by_role("button", name="street").click()
    expect(page.locator("#answers .label")).to_have_text("None of these")
    expect(page.locator("#answers .doubt")).to_contain_text("The nearest is street: eight.")
    expect(page.locator("#status")).to_contain_text("None of these")


def test_other_tasks_that_were_near_are_named(visit: Visit, demo: RunningServer) -> None:
    other = {
        "task": "digits",
        "task_revision": "1",
        "label": HOSTILE_LABEL,
        "score": 0.9,
        "coefficient": 0.25,
    }
    page = visit(demo)
    with_changed_answers(page, lambda result: result.update(alternatives=[other]))
    page.get_by_role("button", name="street").click()
    told = f"It may also be {HOSTILE_LABEL} of digits, 25.0 % likely."
    expect(page.locator("#answers")).to_contain_text(told)
    assert page.title() == "MASS Serve"


def test_a_busy_server_is_asked_again(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    refusals = [429, 503]

    def answered(route: Route) -> None:
        if refusals:
            error = {"error": "The queue is full; try again."}
            route.fulfill(status=refusals.pop(), headers={"Retry-After": "1"}, json=error)
        else:
            route.continue_()

    page.route("**/v1/classify**", answered)
    page.get_by_role("button", name="street").click()
    expect(page.locator("#answers .label")).to_have_text("eight")
    assert refusals == []


def test_a_server_that_is_gone_is_told(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    page.route("**/v1/classify**", lambda route: route.abort())
    page.get_by_role("button", name="street").click()
    expect(page.locator("#answers .error")).to_have_text("The server cannot be reached.")
    expect(page.locator("#status")).to_have_text("1 of 1 requests failed.")
