"""The table of what the forms of the shrink kernel take of a multiprocessor."""

from __future__ import annotations

import json

from docs.compiled_kernels import GPUS
from docs.markup import table
from docs.suites import RESULTS


def shrink_forms_table() -> str:
    """A row for each form, and in a cell the registers of a thread, spilled bytes and blocks."""
    forms = json.loads((RESULTS / "shrink_forms.json").read_text(encoding="utf-8"))["forms"]
    rows = [(_name(one), *(_cell(taken) for taken in one["taken"].values())) for one in forms]
    return table(("registers, spilled bytes, blocks", *map(_head, forms[0]["taken"].items())), rows)


def _name(form: dict[str, bool]) -> str:
    return f"{'packed' if form['packed'] else 'plain'} blocks{' behind a LayerNorm' if form['norm'] else ''}"


def _head(of_gpu: tuple[str, dict[str, int]]) -> str:
    name, taken = of_gpu
    limit = taken["registers_allowed"]
    return GPUS[name] + (f", at most {limit}" if limit else "")


def _cell(taken: dict[str, int]) -> str:
    return f"{taken['registers']}, {taken['spilled_bytes']}, {taken['blocks']}"
