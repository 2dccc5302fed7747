"""Chromium, the page of a server in it, and servers of images and of texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import pytest

from tests.server_processes import RunningServer, demo_server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, LocatorAssertions, Page

# Of the task `domain`: whoever reads it as HTML changes the page's title.
HOSTILE_LABEL = "<img src=x onerror=\"document.title='changed'\"><b>bold</b>"


class Visit(Protocol):
    def __call__(self, server: RunningServer, **options: Any) -> Page: ...


def expect(locator: Locator) -> LocatorAssertions:
    """Returns Playwright's assertions, which wait: what an action causes in a browser comes after it."""
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    return expect(locator)


# By module: its event loop would be in the way of other tests.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from docs.draw_page import browser

    with browser() as started:
        yield started


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Opens the page of a server; at the end, no script failed, and nobody else was asked for anything."""
    wrong: list[str] = []
    opened: list[Page] = []

    def visited(server: RunningServer, **options: Any) -> Page:
        address = str(server.client.base_url)
        page = chromium.new_page(**options)
        opened.append(page)

        def look(url: str) -> None:
            if urlsplit(url).scheme != "blob" and not url.startswith(address):
                wrong.append(url)

        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Policy" in said.text else None)
        page.on("request", lambda request: look(request.url))
        page.goto(address)
        page.wait_for_selector("#tasks li, #key-dialog[open]")
        return page

    yield visited
    assert wrong == []
    for page in opened:
        page.close()


@pytest.fixture(scope="session")
def demo() -> Iterator[RunningServer]:
    with demo_server() as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="session")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tasks `guard`, `domain` with a hostile label, and `pii`, which finds entities."""
    # Here, because transformers takes seconds to import.
    from mass_serve.model_store.build_options import BuildOptions
    from mass_serve.model_store.build_store import build
    from tests import texts, trained_tokenizers

    folder = tmp_path_factory.mktemp("texts")
    tokenizer = trained_tokenizers.TRAINED["Bert"]()
    size = tokenizer.get_vocab_size()
    models = texts.finetuned(folder, "Bert", ("guard", "domain"), ("pii",), vocab_size=size)
    trained_tokenizers.save(tokenizer, models.pretrained)
    config = folder / "domain" / "config.json"
    told = json.loads(config.read_text())
    told["id2label"] = {row: f"{HOSTILE_LABEL} {row}" for row in told["id2label"]}
    del told["label2id"]
    config.write_text(json.dumps(told))
    build(models.pretrained, models.tasks, folder / "store", BuildOptions(force=True))
    return folder / "store"


@pytest.fixture(scope="session")
def text_server(text_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    samples = tmp_path_factory.mktemp("samples") / "samples.txt"
    samples.write_text("What is the weather?\n\nJane lives in Zürich.\n", encoding="utf-8")
    with serving(text_store, samples=samples) as running:
        running.wait_until_ready()
        yield running
