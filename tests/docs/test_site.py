"""The site builds without a warning, every link in it has a target, and it loads nothing from other hosts."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import ROOT

# What the site is built from.
SOURCES = ("zensical.toml", "docs", "docker/README.md", "docker/monitoring.md", "CHANGELOG.md")
# What the theme's script would load from other hosts, were it on a page.
LOADS_FROM_ELSEWHERE = ("mermaid", "glightbox", "pyodide")


def _copied_to(folder: Path) -> None:
    for source in SOURCES:
        target = folder / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target)
        else:
            shutil.copy(ROOT / source, target)


def _build(folder: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("the site needs Zensical: pip install --constraint constraints.txt 'mass-serve[docs]'")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    _copied_to(folder)
    done = _build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


class _Page(HTMLParser):
    """The addresses in a page: those that a browser loads by itself, and those that a reader may follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors = {""}
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects what one tag holds."""
        of = {name: value or "" for name, value in attrs}
        self.anchors.add(of.get("id", ""))
        self.classes |= set(of.get("class", "").split())
        addresses = [of[name] for name in ("href", "src", "srcset", "poster", "data") if name in of]
        (self.links if tag == "a" else self.loaded).extend(addresses)


def _pages(site: Path) -> Iterator[tuple[Path, _Page]]:
    for path in sorted(site.rglob("*.html")):
        # Whoever serves the site shows 404.html at any address, so its own are from the root.
        if path.name != "404.html":
            yield path, _Page(path.read_text(encoding="utf-8"))


def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    sources = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {path.parent.name for path in site.glob("*/index.html")} == sources
    assert (site / "index.html").is_file()


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r'"([\w-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_scripts_beside_the_pages_are_not_in_the_site(site: Path) -> None:
    assert list(site.rglob("*.py")) == []


def test_every_internal_link_resolves(site: Path) -> None:
    pages = dict(_pages(site))
    wrong = []
    for path, page in pages.items():
        for address in (*page.links, *page.loaded):
            split = urlsplit(address)
            if split.scheme or split.netloc:
                continue
            target = (path.parent / unquote(split.path)).resolve() if split.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (target in pages and split.fragment not in pages[target].anchors):
                wrong.append(f"{path.relative_to(site)}: {address}")
    assert wrong == []


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for path, page in _pages(site):
        foreign = [address for address in page.loaded if urlsplit(address).netloc]
        assert foreign == [], path
        assert not page.classes & set(LOADS_FROM_ELSEWHERE), path
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", text), path


@pytest.mark.parametrize(
    "link",
    ["[x](nowhere.md)", "[x](method.md#nowhere)", '--8<-- "nowhere.md"'],
    ids=["page", "anchor", "file"],
)
def test_a_broken_link_ends_the_build(tmp_path: Path, link: str) -> None:
    _copied_to(tmp_path)
    with open(tmp_path / "docs" / "python.md", "a", encoding="utf-8") as page:
        page.write(f"\n{link}\n")
    assert _build(tmp_path).returncode != 0
