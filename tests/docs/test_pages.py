"""The pages as text: well-formed, up to date with the program, no link without a target."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import SECTIONS, outdated, with_sections
from mass_serve.router import MODES, PAPER
from tests.docs.pages import PATHS, README, ROOT, TEXTS, anchors, named, section, tables, without_blocks

README_LINES = 200


def test_the_readme_is_short() -> None:
    assert len(TEXTS[README].splitlines()) <= README_LINES


def test_the_sections_that_the_program_writes_are_up_to_date() -> None:
    """Where this fails: python -m docs.generate."""
    assert [path.name for path in outdated()] == []
    written = re.findall(r"<!-- generated: (\w+) -->", "".join(TEXTS.values()))
    assert sorted(written) == sorted(SECTIONS)


def test_an_outdated_section_is_noticed_and_the_rest_of_the_page_stays() -> None:
    page = "before\n<!-- generated: modes -->\nold\n<!-- end of modes -->\nafter\n"
    written = with_sections(page)
    assert "old" not in written
    assert "| `fast` |" in written
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert with_sections(written) == written


def test_the_modes_are_all_explained() -> None:
    part = section(TEXTS[ROOT / "docs" / "method.md"], "the-modes")
    assert re.findall(r"^\| `(\w+)`[^|]* \| [^|]{20,} \|", part, flags=re.MULTILINE) == [*MODES, PAPER]


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_every_row_of_a_table_has_its_cells(path: Path) -> None:
    for table in tables(TEXTS[path]):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table[:200]


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_every_code_block_has_a_language_and_an_end(path: Path) -> None:
    fences = re.findall(r"^```.*$", TEXTS[path], flags=re.MULTILINE)
    assert all(fence != "```" for fence in fences[::2])
    assert all(fence == "```" for fence in fences[1::2])
    assert len(fences) % 2 == 0


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_every_link_of_the_repository_has_a_target(path: Path) -> None:
    """As a reader of the repository follows them; the site's own links are in test_site."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(TEXTS[path])):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.is_file(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target
