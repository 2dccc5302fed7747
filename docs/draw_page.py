"""Draws docs/images/page.png and page-phone.png from a running server: its page, with answers.

pip install playwright && apt-get install chromium
python -m docs.draw_page [--out FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, ViewportSize, sync_playwright

from tests.server_processes import demo_server

ROOT = Path(__file__).parents[1]
DESK: ViewportSize = {"width": 1060, "height": 820}
PHONE: ViewportSize = {"width": 390, "height": 844}
# The browser runs without a sandbox's user, a GPU or calls to its maker.
BROWSER_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts the system's Chromium and ends it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(BROWSER_FLAGS))
        yield started
        started.close()


def draw(address: str, out: Path) -> None:
    """Writes screenshots of the page of the server at `address`: of a desk, and in the dark of a phone."""
    with browser() as started:
        page = started.new_page(viewport=DESK, device_scale_factor=1.5, color_scheme="light")
        page.goto(address)
        page.get_by_role("button", name="street").click()
        page.wait_for_selector("#answers .label")
        page.screenshot(path=out / "page.png")
        page = started.new_page(viewport=PHONE, device_scale_factor=1.5, color_scheme="dark")
        page.goto(address)
        page.get_by_role("button", name="noise").click()
        page.wait_for_selector("#answers .label")
        page.screenshot(path=out / "page-phone.png")


def main() -> None:
    """Starts a server of the demo store, draws its page, and stops the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    with demo_server() as server:
        server.wait_until_ready()
        draw(str(server.client.base_url), options.out)


if __name__ == "__main__":
    main()
