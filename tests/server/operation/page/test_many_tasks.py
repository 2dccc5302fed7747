"""The page of a store of hundreds of tasks, and of groups of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.many_tasks import EVEN, NAMES, NUM_TASKS
from tests.server.operation.page.conftest import Visit, expect
from tests.server.operation.page.test_accessibility import PHONE, violations
from tests.server.operation.page.test_images import choose, query
from tests.server_processes import RunningServer, serving

pytestmark = pytest.mark.optional("browser")

GROUP = f"@{EVEN}"
MOST_ROWS = 50


@pytest.fixture(scope="module")
def many(many_tasks: Path) -> Iterator[RunningServer]:
    with serving(many_tasks) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def red(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_some_of_many_are_shown_and_all_are_found(visit: Visit, many: RunningServer) -> None:
    page = visit(many)
    rows, more = page.locator("#tasks > li"), page.locator("#more")
    expect(rows).to_have_count(MOST_ROWS)
    expect(more).to_have_text(f"{NUM_TASKS + 1 - MOST_ROWS} more: type a part of a name to find them.")
    page.fill("#filter", "TASK-49")
    expect(rows).to_have_count(10)
    expect(more).to_be_hidden()
    page.fill("#filter", "nothing")
    expect(rows).to_have_count(0)


def test_labels_are_fetched_when_they_are_looked_at(visit: Visit, many: RunningServer) -> None:
    page = visit(many)
    page.fill("#filter", NAMES[499])
    with page.expect_request(f"**/v1/tasks/{NAMES[499]}"):
        page.click("#tasks summary")
    expect(page.locator("#tasks > li")).to_contain_text("class 0, class 1")


def test_what_is_ticked_stays_so_when_it_is_out_of_sight(
    visit: Visit, many: RunningServer, red: Path
) -> None:
    page = visit(many)
    choose(page, red)
    for name in (NAMES[499], NAMES[3]):
        page.fill("#filter", name)
        page.check(f"#tasks [value={name}]")
    with page.expect_request("**/v1/classify**") as asked:
        page.click("[name=question][value=each]")
    assert query(asked.value) == {"tasks": [f"{NAMES[499]},{NAMES[3]}"], "answer": ["each"]}
    expect(page.locator("#asked")).to_have_text(f"Only {NAMES[499]}, {NAMES[3]}.")
    page.fill("#filter", NAMES[499])
    expect(page.locator("#tasks input:checked")).to_have_count(1)


def test_a_group_is_asked_by_its_name(visit: Visit, many: RunningServer, red: Path) -> None:
    page = visit(many)
    row = page.locator("#tasks > li").first
    expect(row).to_contain_text("group of 250 tasks")
    row.locator("summary").click()
    expect(row).to_contain_text(f"{NAMES[0]}, {NAMES[2]}, ")
    choose(page, red)
    with page.expect_request("**/v1/classify**") as asked:
        page.check(f'#tasks [value="{GROUP}"]')
    assert query(asked.value) == {"tasks": [GROUP]}
    expect(page.locator("#answers .task b")).to_have_text(re.compile(r"task-\d\d[02468]"))
    expect(page.locator("#answers .bars").nth(1)).to_contain_text("others together")


def test_it_fits_a_phone_and_has_no_violation(visit: Visit, many: RunningServer) -> None:
    page = visit(many, viewport=PHONE)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
