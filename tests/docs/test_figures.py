"""The figures of the pages are those of the recorded runs, and those of the README are the pages'."""

from __future__ import annotations

import json
import re

from tests.docs.pages import README, ROOT, TEXTS, section, tables, without_blocks

RESULTS = ROOT / "benchmarks" / "results"
FIGURES = TEXTS[ROOT / "docs" / "figures.md"]
ACCURACY = TEXTS[ROOT / "docs" / "accuracy.md"]


def test_the_figures_are_those_of_the_recorded_runs() -> None:
    recorded = {k: v for path in RESULTS.glob("*_cpu.json") for k, v in json.loads(path.read_text()).items()}
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| (-?[\d.]+) \|", FIGURES, flags=re.MULTILINE)
    assert len(rows) > 10
    for key, shown in rows:
        assert shown == f"{recorded[key]:.3f}", key


def test_the_tables_of_builds_are_those_of_the_recorded_runs() -> None:
    shown = section(FIGURES, "building")
    runs = json.loads((RESULTS / "building_decaying_cpu.json").read_text())
    titles = ("this version", "this version, `--exact`", "whole decompositions only")
    for title, name in zip(titles, ("default", "exact", "against"), strict=True):
        run, share = runs[name], runs[name]["seconds"] / runs["against"]["seconds"]
        memory, size = (f"{run[key] / 1e6:.0f}" for key in ("peak_bytes", "store_bytes"))
        assert f"| {title} | {run['seconds']:.1f} | {share:.3f} | {memory} | {size} |" in shown, name
    flat = json.loads((RESULTS / "building_flat_cpu.json").read_text())
    assert f"the share is {flat['default']['seconds'] / flat['against']['seconds']:.3f} " in shown
    for key, figure in json.loads((RESULTS / "building_vit_l_14_cpu.json").read_text()).items():
        text = f"{figure / 1e9:.2f} GB" if "bytes" in key else f"{figure:.1f} s"
        assert f"| `{key}` | {text} |" in shown, key


def test_the_exchange_of_revisions_is_that_of_the_recorded_run() -> None:
    recorded = json.loads((RESULTS / "hot_swap_cpu.json").read_text())
    shown = section(FIGURES, "exchanging-revisions")
    assert f"was {recorded['p99_with_over_without_swaps']:.3f} times" in " ".join(shown.split())
    assert recorded["failed_during_swaps"] == 0
    assert "none failed" in shown


def test_what_the_text_of_accuracy_says_of_a_figure_is_in_its_tables() -> None:
    text = without_blocks(ACCURACY)
    shown = set(re.findall(r"\b\d\.\d{3}\b", "".join(tables(text))))
    assert len(shown) > 100
    prose = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    assert set(re.findall(r"\b\d\.\d{3}\b", prose)) - shown == set()


def test_the_readmes_figures_are_in_the_tables_that_they_link_to() -> None:
    rows = re.findall(
        r"^\| [^|]+ \| ([\d.]+) \| \[[^]]+\]\(([\w/.-]+)#([\w-]+)\) \|$", TEXTS[README], flags=re.MULTILINE
    )
    assert len(rows) > 5
    for figure, page, anchor in rows:
        part = section(TEXTS[ROOT / page], anchor)
        assert re.search(rf"^\|.*\| {re.escape(figure)} \|", part, flags=re.MULTILINE), (figure, page, anchor)
