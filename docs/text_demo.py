"""The tables of `make text-demo`: where its texts come from, and the figures of the recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.markup import code, table
from examples.text_demo.packages import PACKAGES
from examples.text_demo.tasks import MODES, SAME_TEXTS, TWICE_LABELLED

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
COLUMNS = ("logistic_regression", "individual", "tsv_c", *MODES)
MIB = 1 << 20


def text_sources_table() -> str:
    """The packages with what is taken from them."""
    rows = [(f"{p.name} {p.version}".strip(), p.registry, p.licence, p.holds) for p in PACKAGES]
    return table(("package", "from", "licence", "what is taken"), rows)


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
        (code(name), str(one["texts"]), str(one["labels"]), *(_three(one[column]) for column in COLUMNS))
        for name, one in tasks.items()
    ]
    means = [sum(one[column] for one in tasks.values()) / len(tasks) for column in COLUMNS]
    texts = sum(one["texts"] for one in tasks.values())
    return table(head, [*rows, ("average", f"{texts:,}", "", *map(_three, means))])


def text_modes_table() -> str:
    """A row a mode: accuracy with the task unknown, what it costs, and the same after calibration."""
    run = _recorded("text_demo")
    head = (
        *("mode", "accuracy", "95 %", "share of individual", "router right", "passes"),
        *("ms, one text", "ms, of 32", "calibrated: accuracy", "share", "router right", "passes"),
    )
    known = [("task named", "tsv_c", "task named"), ("individual", "individual", "individual")]
    rows = [_mode_row(mode, run) for mode in MODES]
    return table(head, [*rows, *(_known_row(*names, run) for names in known)])


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
            _three(plain["auroc"]),
            _three(after["auroc"]),
            _three(after["unrouted"]),
        )
        for name, plain, after in pairs
    ]
    return table(head, rows)


def text_same_table() -> str:
    """A row for each of two tasks on the same texts: routed, and both asked."""
    same = _recorded("text_demo")["same_texts"]
    head = ("task", "individual", "`exact`", "router right", 'answered by each (`"answer": "each"`)')
    rows = [
        (code(name), *(_three(same[name][key]) for key in ("individual", "exact", "router_accuracy", "each")))
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
        (row["evidence"], *_place(row), _three(row["right"]))
        for row in _recorded("text_routing_chosen_on")
        if not row["evidence"].startswith("early energy at")
    ]
    return table(head, rows)


def _place(row: Any) -> tuple[str, str]:
    return ("", "") if row["layer"] is None else (str(row["layer"]), row["token"])


def _recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _mode_row(mode: str, run: Any) -> tuple[str, ...]:
    plain, calibrated = run["modes"][mode], run["calibrated"].get(mode)
    interval = " to ".join(map(_three, plain["interval"]))
    before = (_three(plain["accuracy"]), interval, *_routed(plain), *_times(mode, run))
    after = (_three(calibrated["accuracy"]), *_routed(calibrated)) if calibrated else [""] * 4
    return (code(mode), *before, *after)


def _known_row(title: str, baseline: str, timed: str, run: Any) -> tuple[str, ...]:
    average = run["average"][baseline]
    share = average / run["average"]["individual"]
    return (title, _three(average), "", _three(share), "", "1.00", *_times(timed, run), *[""] * 4)


def _routed(figures: Any) -> tuple[str, str, str]:
    share, router = figures["normalised_accuracy"], figures["router_accuracy"]
    return _three(share), _three(router), f"{figures['mean_passes']:.2f}"


def _times(name: str, run: Any) -> tuple[str, str]:
    one, many = (run["milliseconds"][count][name] for count in ("1", "32"))
    return f"{one:.1f}", f"{many:.1f}"


def _three(value: float) -> str:
    return f"{value:.3f}"
