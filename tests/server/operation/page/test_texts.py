"""The page of a store of texts, in Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server.operation.page.conftest import HOSTILE_LABEL, Visit, expect
from tests.server_processes import RunningServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.optional("browser")


def ask(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Control+Enter")
    page.wait_for_selector("#answers > li:last-child > :nth-child(2)")
    expect(page.locator("#status")).not_to_contain_text("Asking")


def test_each_line_is_a_text_or_all_are_one(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    ask(page, "What is the weather?\n\nIt rains.\n")
    assert page.locator("#answers blockquote").all_inner_texts() == ["What is the weather?", "It rains."]
    expect(page.locator("#status")).to_have_text("2 answers.")
    page.uncheck("#lines")
    ask(page, "What is the weather?\nIt rains.")
    assert page.locator("#answers blockquote").all_inner_texts() == ["What is the weather?\nIt rains."]


def test_texts_go_in_pairs_where_second_ones_are_given(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    page.check("#tasks [value=guard]")
    page.locator("#pairs summary").click()
    page.fill("#seconds", "It is wet.\nIt is dry.")
    ask(page, "It rains.\nThe sun shines.")
    assert page.locator("#answers blockquote").all_inner_texts() == [
        "It rains.\nIt is wet.",
        "The sun shines.\nIt is dry.",
    ]
    command = page.inner_text("#command")
    assert '{"text":"It rains.","text_pair":"It is wet."}' in command
    pairs = [{"text": "It rains.", "text_pair": "It is wet."}]
    (asked,) = text_server.client.post("/v1/classify", json={"texts": pairs, "tasks": ["guard"]}).json()[
        "results"
    ]
    expect(page.locator("#answers .task").first).to_contain_text(f"{asked['score'] * 100:.1f} %")


def test_a_pair_needs_two_texts(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    page.locator("#pairs summary").click()
    page.fill("#seconds", "It is wet.")
    page.fill("#text", "It rains.\nThe sun shines.")
    page.press("#seconds", "Control+Enter")
    expect(page.locator("#status .error")).to_have_text(
        "There are 2 first and 1 second texts; a pair needs one of each."
    )
    expect(page.locator("#answers li")).to_have_count(0)


def test_a_sample_is_a_text(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    expect(page.locator("#samples button")).to_have_text(["What is the weather?", "Jane lives in Zürich."])
    page.get_by_role("button", name="Jane").click()
    expect(page.locator("#answers .label")).to_have_count(1)
    expect(page.locator("#command")).to_contain_text('curl -d \'{"texts":["Jane lives in Zürich."]}\'')


def test_entities_are_marked_where_they_stand(visit: Visit, text_server: RunningServer) -> None:
    # The face is one code point, and two units of a string in JavaScript.
    text = "\N{GRINNING FACE} Jane <b>lives</b> in Zürich."
    page = visit(text_server)
    page.check("#tasks [value=pii]")
    ask(page, text)
    asked = {"texts": [text], "tasks": ["pii"]}
    (result,) = text_server.client.post("/v1/classify", json=asked).json()["results"]
    assert result["entities"], "there is something to mark"
    marks = page.locator("#answers mark").all_inner_texts()
    assert marks == [f"{found['text']} {found['label']}" for found in result["entities"]]
    whole: str = page.evaluate(
        """() => {
            const copy = document.querySelector(".marked").cloneNode(true);
            for (const mark of copy.querySelectorAll("mark")) mark.replaceWith(mark.firstChild);
            return copy.textContent;
        }"""
    )
    assert whole == text


def test_entities_stand_beside_the_labels_of_other_tasks(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    page.check("[value=each]")
    ask(page, "Jane lives in Zürich.")
    expect(page.locator("#answers .bars").first).to_contain_text("guard: guard")
    expect(page.locator("#answers mark").first).to_be_visible()


def test_what_was_not_read_is_told(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    ask(page, "weather " * 500)
    expect(page.locator("#answers")).to_contain_text("tokens of the text were not read")


def test_what_the_server_refuses_is_told_in_its_words(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    page.check("#tasks [value=guard]")
    page.check("#tasks [value=pii]")
    ask(page, "Jane")
    asked = {"texts": ["Jane"], "tasks": ["guard", "pii"]}
    refused = text_server.client.post("/v1/classify", json=asked).json()["error"]
    expect(page.locator("#answers .error")).to_have_text(refused)


def test_labels_never_become_html(visit: Visit, text_server: RunningServer) -> None:
    page = visit(text_server)
    page.check("#tasks [value=domain]")
    page.locator("#tasks li:has([value=domain]) summary").click()
    ask(page, HOSTILE_LABEL)
    for shown in ("#answers .label", "#tasks", "#answers blockquote"):
        expect(page.locator(shown)).to_contain_text(HOSTILE_LABEL)
    assert page.locator("#tasks img, #tasks b, #answers img, #answers .label b").count() == 0
    assert page.title() == "MASS Serve"
