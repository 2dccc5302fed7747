"""The tables of `make text-demo`: where its texts come from, and the figures of the recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.demo_tables import modes_table, sources_table, three
from docs.markup import code, table
from examples.from_packages.commands import MODES
from examples.text_demo.packages import PACKAGES
from examples.text_demo.tasks import SAME_TEXTS, TWICE_LABELLED

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
COLUMNS = ("logistic_regression", "individual", "tsv_c", *MODES)
MIB = 1 << 20


def text_sources_table() -> str:
    """The packages with what is taken from them."""
    return sources_table(PACKAGES)


def text_tasks_table() -> str:
    """A row a task, and the averages: accuracy before and after fine-tuning, task known, and by mode."""
    tasks = _recorded("text_demo")["tasks"]
    head = (
        "task",
        "texts",
        "labels",
        "classifier alone",
        "individual",
        "TSV-C, task known",
        *map(code, MODES),
    )
    rows = [
        (code(name), str(one["texts"]), str(one["labels"]), *(three(one[column]) for column in COLUMNS))
        for name, one in tasks.items()
    ]
    means = [sum(one[column] for one in tasks.values()) / len(tasks) for column in COLUMNS]
    texts = sum(one["texts"] for one in tasks.values())
    return table(head, [*rows, ("average", f"{texts:,}", "", *map(three, means))])


def text_modes_table() -> str:
    """A row a mode, and what the models are without one (see `modes_table`)."""
    return modes_table(_recorded("text_demo"), MODES, "text")


def text_unfamiliar_table() -> str:
    """A row a kind of texts that no task covers: can they be told, before and after calibration."""
    run = _recorded("text_demo")["unfamiliar"]
    head = ("texts", "number", "AUROC", "calibrated: AUROC", "answered as unrouted")
    pairs = [
        (name, run["plain"]["domains"][name], run["calibrated"]["domains"][name])
        for name in run["plain"]["domains"]
    ] + [("average", run["plain"]["average"], run["calibrated"]["average"])]
    rows = [
        (
            name,
            str(plain["images"]),
            three(plain["auroc"]),
            three(after["auroc"]),
            three(after["unrouted"]),
        )
        for name, plain, after in pairs
    ]
    return table(head, rows)


def text_same_table() -> str:
    """A row for each of two tasks on the same texts: routed, and both asked."""
    same = _recorded("text_demo")["same_texts"]
    head = ("task", "individual", "`exact`", "router right", 'task named, as `"answer": "each"` names all')
    rows = [
        (code(name), *(three(same[name][key]) for key in ("individual", "exact", "router_accuracy", "each")))
        for name in (TWICE_LABELLED, SAME_TEXTS.name)
    ]
    return table(head, rows)


def text_bytes_table() -> str:
    """The bytes of the store beside those of the models by themselves."""
    size = _recorded("text_demo")["bytes"]
    head = ("", "MiB", "of one model's")
    one = size["models"] / size["tasks"]
    names = {
        f"{size['tasks']} models on disk": "models",
        "the store on disk": "store",
        "the store in memory, mode `exact`": "engine",
        "its encoder": "encoder",
    }
    rows = [(name, f"{size[key] / MIB:.0f}", f"{size[key] / one:.2f}") for name, key in names.items()]
    return table(head, rows)


def text_routing_table() -> str:
    """How often each kind of evidence has the right task first, on the tasks that it was chosen on."""
    head = ("evidence", "layer", "token", "right")
    rows = [
        (row["evidence"], *_place(row), three(row["right"]))
        for row in _recorded("text_routing_chosen_on")
        if not row["evidence"].startswith("early energy at")
    ]
    return table(head, rows)


def _place(row: Any) -> tuple[str, str]:
    return ("", "") if row["layer"] is None else (str(row["layer"]), row["token"])


def _recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
