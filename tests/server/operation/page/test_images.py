"""The page of a store of images, in Chromium: choosing, answers and why, tasks, the command."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.server.operation.page.conftest import Visit, expect
from tests.server_processes import ROOT, RunningServer, demo_server

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

pytestmark = pytest.mark.optional("browser")

IMAGES = ROOT / "examples" / "images"
EIGHT, ALPHA = IMAGES / "street/eight/00.png", IMAGES / "greek/alpha/00.png"


def choose(page: Page, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])
    page.wait_for_selector(f"#answers li:nth-child({len(files)}) > :nth-child(2)")
    expect(page.locator("#status")).not_to_contain_text("Asking")


def query(request: Request) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.url).query)


def test_it_says_what_is_served(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    served = demo.client.get("/v1/tasks").json()
    assert f"{len(served['tasks'])} classifiers of images" in page.inner_text("#summary")
    assert served["store_revision"] in page.inner_text("#summary")
    rows = page.locator("#tasks > li")
    assert rows.count() == len(served["tasks"])
    for place, task in enumerate(served["tasks"]):
        row = rows.nth(place)
        row.locator("summary").click()
        for told in (task["name"], task["revision"], ", ".join(task["labels"])):
            expect(row).to_contain_text(told)


def test_a_sample_is_answered_with_the_reasons(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    page.get_by_role("button", name="street").click()
    answer = page.locator("#answers > li")
    expect(answer.locator(".label")).to_have_text("eight")
    assert answer.locator(".task b").inner_text() == "street"
    told = answer.inner_text()
    assert "How likely each task is" in told
    assert "familiarity" in told
    assert "others together" in told
    expect(page.locator("#status")).to_contain_text("eight, task street")  # which a screen reader reads


def test_every_dropped_file_is_answered_by_itself(visit: Visit, demo: RunningServer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    page = visit(demo)
    choose(page, EIGHT, broken, ALPHA)
    answers = page.locator("#answers > li")
    assert answers.nth(0).locator(".label").inner_text() == "eight"
    assert "not an image" in answers.nth(1).locator(".error").inner_text()
    assert answers.nth(2).locator(".label").inner_text() == "alpha"
    expect(page.locator("#status")).to_have_text("1 of 3 requests failed.")


def test_files_can_be_dropped_and_pasted(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    for kind, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """async ([kind, field, numbers]) => {
                const data = new DataTransfer(), bytes = new Uint8Array(numbers);
                for (const name of ["a.png", "b.png"]) data.items.add(new File([bytes], name));
                document.body.dispatchEvent(kind === "drop"
                    ? new DragEvent(kind, { bubbles: true, cancelable: true, [field]: data })
                    : new ClipboardEvent(kind, { bubbles: true, cancelable: true, [field]: data }));
            }""",
            [kind, field, list(EIGHT.read_bytes())],
        )
        expect(page.locator("#answers .label")).to_have_text(["eight", "eight"])
        expect(page.locator("#status")).to_have_text("2 answers.")
        page.reload()
        page.wait_for_selector("#tasks li")


def test_ticked_tasks_are_asked_alone(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    choose(page, EIGHT)
    with page.expect_request("**/v1/classify**") as asked:
        page.check("#tasks [value=digits]")
    assert query(asked.value) == {"tasks": ["digits"]}
    expect(page.locator("#answers .task")).to_contain_text("digits")
    expect(page.locator("#answers")).to_contain_text("nothing was routed")
    with page.expect_request("**/v1/classify**") as asked:
        page.check("#tasks [value=street]")
    assert query(asked.value) == {"tasks": ["digits,street"]}
    expect(page.locator("#asked")).to_have_text("Only digits, street.")
    with page.expect_request("**/v1/classify**") as asked:
        page.get_by_role("button", name="Ask all").click()
    assert query(asked.value) == {}
    expect(page.locator("#tasks input:checked")).to_have_count(0)


def test_every_task_answers(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    choose(page, EIGHT)
    page.check("[value=each]")
    expect(page.locator("#answers .bars")).to_contain_text("street: eight")
    expect(page.locator("#answers .bars > div")).to_have_count(
        len(demo.client.get("/v1/tasks").json()["tasks"])
    )


def test_the_mode_of_the_search_is_chosen(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    served = demo.client.get("/v1/tasks").json()["modes"]
    assert page.locator("#mode option").count() == len(served) + 1
    with page.expect_request("**/v1/classify**") as asked:
        choose(page, EIGHT)
    assert query(asked.value) == {}
    with page.expect_request("**/v1/classify**") as asked:
        page.select_option("#mode", served[1])
    assert query(asked.value) == {"mode": [served[1]]}
    expect(page.locator("#command")).to_contain_text(f"?mode={served[1]}")
    with page.expect_request("**/v1/classify**") as asked:
        page.check("[value=each]")
    assert query(asked.value) == {"answer": ["each"]}, "nothing is searched for"


def test_the_modes_are_compared(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    page.select_option("#mode", "compared")
    choose(page, EIGHT, ALPHA)
    rows = page.locator("#answers li").first.locator(".bars dt")
    expect(rows).to_have_text(
        [f"{mode}, street: eight" for mode in demo.client.get("/v1/tasks").json()["modes"]]
    )
    expect(page.locator("#answers .task").first).to_have_text("All modes agree.")
    expect(page.locator("#status")).to_have_text("2 answers.")


def test_images_of_one_task_are_asked_together(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    page.check("[value=same_task]")
    with page.expect_request("**/v1/classify**") as asked:
        choose(page, EIGHT, IMAGES / "street" / "three" / "00.png")
    assert query(asked.value) == {"same_task": ["true"]}
    expect(page.locator("#answers .task b")).to_have_text(["street", "street"])


def test_the_command_asks_the_same(visit: Visit, demo: RunningServer, tmp_path: Path) -> None:
    """Run in a shell, also with a file's name that means something to shells and to curl."""
    odd = tmp_path / 'it\'s; "odd" $HOME, @x.png'
    shutil.copyfile(EIGHT, odd)
    page = visit(demo)
    page.check("[value=each]")
    page.check("#tasks [value=street]")
    choose(page, odd)
    done = subprocess.run(
        ["bash", "-c", page.inner_text("#command")], cwd=tmp_path, capture_output=True, check=True
    )
    (result,) = json.loads(done.stdout)["results"]
    assert (result["task"], result["label"]) == ("street", "eight")


def test_the_command_can_be_copied(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#command")


def test_it_works_with_a_keyboard_alone(visit: Visit, demo: RunningServer) -> None:
    page = visit(demo)
    page.wait_for_selector("#samples:not([hidden])")
    focused = "document.activeElement.id || document.activeElement.value"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "files"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answers .label")).to_have_text("beach")
    while page.evaluate(focused) != "best":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#answers .bars")).to_contain_text("street: ")
    while page.evaluate(focused) != "street":
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#answers .task")).to_contain_text("street")


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("secret\n")
    with demo_server(inference_keys_file=keys) as running:
        running.wait_until_ready()
        yield running


def test_a_key_is_asked_for_once(visit: Visit, with_keys: RunningServer) -> None:
    page = visit(with_keys)
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-dialog:not([open])", state="attached")
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tasks li")
    choose(page, EIGHT, ALPHA)
    expect(page.locator("#answers .label")).to_have_text(["eight", "alpha"])
    expect(page.locator("#command")).to_contain_text('-H "X-API-Key: $KEY"')
    assert "secret" not in page.content()


def test_that_there_is_no_key_is_told(visit: Visit, with_keys: RunningServer) -> None:
    page = visit(with_keys)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status .error")).to_contain_text("key")
