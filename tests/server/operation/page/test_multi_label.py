"""Tasks of any number of labels on the page, in Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.operation.page.conftest import HOSTILE_LABEL, Visit, expect
from tests.server.operation.page.test_accessibility import PHONE, violations
from tests.server.operation.page.test_texts import ask
from tests.server_processes import RunningServer, serving

pytestmark = pytest.mark.optional("browser")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Of all labels of `domain` and of none of `safety` the thresholds are reached; `guard` gives one."""
    # Here, because transformers takes seconds to import.
    from mass_serve.model_store.build_options import BuildOptions
    from mass_serve.model_store.build_store import build
    from tests import texts, trained_tokenizers

    folder = tmp_path_factory.mktemp("labels")
    tokenizer = trained_tokenizers.TRAINED["Bert"]()
    size = tokenizer.get_vocab_size()
    models = texts.finetuned(folder, "Bert", multi_label=("domain", "safety"), vocab_size=size)
    trained_tokenizers.save(tokenizer, models.pretrained)
    for task, threshold in (("domain", 0.0), ("safety", 1.0)):
        labels = [f"{HOSTILE_LABEL} {row}" for row in models.models[task].config.id2label]
        _write(folder / task / "labels.json", labels)
        _write(folder / task / "thresholds.json", dict.fromkeys(labels, threshold))
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    with serving(folder / "store") as running:
        running.wait_until_ready()
        yield running


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def test_labels_are_chips_with_their_probabilities_and_no_html(visit: Visit, server: RunningServer) -> None:
    page = visit(server)
    page.check("#tasks [value=domain]")
    ask(page, "What is the weather?")
    (asked,) = server.client.post(
        "/v1/classify", json={"texts": ["What is the weather?"], "tasks": ["domain"]}
    ).json()["results"]
    chips = page.get_by_role("list", name="Labels").get_by_role("listitem")
    expect(chips).to_have_count(len(asked["labels"]))
    told = [f"{one['label']} {one['score'] * 100:.1f} %" for one in asked["labels"]]
    expect(chips).to_have_text(told)
    labels = [one["label"] for one in asked["labels"]]
    expect(page.locator("#status")).to_have_text(f"{', '.join(labels[:-1])} and {labels[-1]}, task domain.")
    assert page.title() != "changed"


def test_an_input_may_have_no_label(visit: Visit, server: RunningServer) -> None:
    page = visit(server)
    page.check("#tasks [value=safety]")
    ask(page, "What is the weather?")
    expect(page.locator("#answers .label")).to_have_text("No label")
    expect(page.locator("#answers .task")).to_contain_text("the likeliest is <img")
    expect(page.locator("#status")).to_have_text("No label, task safety.")


def test_tasks_of_both_kinds_answer_side_by_side(visit: Visit, server: RunningServer) -> None:
    page = visit(server)
    ask(page, "What is the weather?")
    page.check("[value=each]")
    expect(page.locator("#answers h3")).to_have_text(["domain", "safety"])
    expect(page.locator("#answers .bars")).to_contain_text("guard: ")
    expect(page.locator("#answers .chips li")).to_have_count(4)
    expect(page.locator("#answers")).to_contain_text("no label")


def test_a_task_says_that_it_gives_any_number(visit: Visit, server: RunningServer) -> None:
    told = visit(server).locator("#tasks summary").all_inner_texts()
    assert ["any number of them" in one for one in told] == [False, True, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chips_have_no_violation_and_fit_a_phone(visit: Visit, server: RunningServer, scheme: str) -> None:
    page = visit(server, viewport=PHONE, color_scheme=scheme)
    page.check("#tasks [value=domain]")
    ask(page, "What is the weather?")
    expect(page.locator("#answers .chips li")).to_have_count(4)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
