"""Draws docs/images/page.png from a running server: the server's page, after an image was dropped on it.

pip install playwright && apt-get install chromium
python -m docs.draw_page [--image FILE] [--out FILE]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.http_overhead import start_server

ROOT = Path(__file__).parents[1]
DEMO_STORE = ROOT / "server" / "demo_store"
SIZE = {"width": 960, "height": 620}
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


def draw(address: str, image: Path, out: Path) -> None:
    """Drops `image` on the page of the server at `address` and writes a screenshot of the answer."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(BROWSER_FLAGS))
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5, color_scheme="light")
        # The first request warms the model up, so that the second shows the usual milliseconds.
        for _ in range(2):
            _classify(page, address, image)
        page.screenshot(path=out)
        browser.close()


def _classify(page: Page, address: str, image: Path) -> None:
    page.goto(address)
    with page.expect_response("**/v1/classify**"):
        page.set_input_files("#file", image)
    page.wait_for_selector("#answer .label")


def main() -> None:
    """Starts a server for the demo store, draws its page, and stops the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--image", type=Path, default=ROOT / "examples/images/street/five/00.png")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/page.png")
    options = parser.parse_args()
    process, address = start_server(DEMO_STORE)
    try:
        draw(address, options.image, options.out)
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
