"""The tables of the plan for large sizes: what one server was measured at, times how many are needed."""

from __future__ import annotations

import json
import math
from typing import Any

from benchmarks.random_models import VIT_B_32
from docs.markup import table
from docs.on_ray import halves_over_whole
from docs.suites import RESULTS
from mass_serve.backbone.architecture import weight_of
from mass_serve.model_store.format.experts import ExpertLayout
from mass_serve.model_store.format.factoring import Factoring
from mass_serve.model_store.format.rank_rules import FixedRankRule
from mass_serve.server.settings import Settings

IMAGES_AN_HOUR = 1_000_000
REGIONS = 3
# Of saturation, at which `benchmarks.service` counts errors.
PLANNED_SHARE = 0.8
TASKS = (8, 20, 100, 500, 1000)
RANK = 16
FLOAT32 = 4
GIGABYTE = 1_000_000_000
# Of the network that stores are read through, bytes a second: 10 gigabits.
NETWORK = 1_250_000_000


def scale_replicas_table() -> str:
    """From images an hour to servers, in one region and in several of which one may be lost."""
    measured = _recorded("http_cpu")
    rate, cores = measured["raw"]["throughput"], measured["environment"]["cores"]
    wanted, planned = IMAGES_AN_HOUR / 3600, rate * PLANNED_SHARE
    servers, left = math.ceil(wanted / planned), REGIONS - 1
    of_each = math.ceil(wanted / left / planned)
    rows = [
        ("wanted", f"{IMAGES_AN_HOUR:,} / 3,600 s", f"{wanted:.1f} images a second"),
        (f"one server of {cores} cores at saturation", "measured", f"{rate:.2f} images a second"),
        ("of that, planned", f"{PLANNED_SHARE} x {rate:.2f}", f"{planned:.2f} images a second"),
        ("errors at that share", "measured", f"{measured['errors_at_80_percent']:.3f}"),
        (
            "servers",
            f"{wanted:.1f} / {planned:.2f}, rounded up",
            f"{servers}, which are {servers * cores} cores",
        ),
        (
            f"in each of {REGIONS} regions, of which {left} must do",
            f"{wanted:.1f} / {left} / {planned:.2f}, rounded up",
            f"{of_each}, in all {of_each * REGIONS}",
        ),
        (
            "two replicas of Ray with half of the cores each, over one with all",
            "measured, the lowest round",
            f"{min(halves_over_whole()):.2f}",
        ),
        (
            "waiting in all queues at most",
            f"{servers} x `queue_images`",
            f"{servers * Settings.model_fields['queue_images'].default:,} images",
        ),
    ]
    return table(("what", "how", ""), rows)


def scale_tasks_table() -> str:
    """A row for each number of tasks: what so many adapters hold, by arithmetic, and what was measured."""
    encoder, one = _encoder_bytes(), _adapter_bytes()
    residence, cost = _recorded("tasks_residence_cpu"), _recorded("tasks_cost_cpu")
    rows = []
    for tasks in TASKS:
        blocks = tasks * one
        whole = encoder + blocks
        rows.append(
            (
                f"{tasks:,}",
                f"{tasks:,} x {one / 1e6:.2f} MB = {blocks / GIGABYTE:.2f} GB",
                f"{whole / GIGABYTE:.2f} GB",
                f"{whole / NETWORK:.1f} s",
                f"{1 + 2 * tasks:,}",
                f"{tasks * encoder / GIGABYTE:,.1f} GB",
                *_loaded(residence.get(str(tasks))),
                _found(cost.get(str(tasks))),
            )
        )
    head = (
        *("tasks", "blocks, heads apart", "with the encoder", "read at 10 Gbit/s", "files", "whole models"),
        *("a process, measured", "loads in, measured", "task found by `exact`, measured"),
    )
    return table(head, rows)


def _loaded(run: Any) -> tuple[str, str]:
    """The memory of a process that has loaded a store, and the seconds that took; empty if not measured."""
    if run is None:
        return "", ""
    return f"{run['all']['resident'] / GIGABYTE:.2f} GB", f"{run['all']['load_seconds']:.1f} s"


def _found(run: Any) -> str:
    """The share of inputs whose task is found; empty if it was not measured."""
    return "" if run is None else f"{run['right']['exact']:.3f}"


def scale_swap_table() -> str:
    """What a revision that is taken over under load costs those who ask meanwhile."""
    measured = _recorded("hot_swap_cpu")
    raw = measured["raw"]
    rows = [
        ("revisions taken over under half load", f"{raw['swaps']:.0f}"),
        ("requests meanwhile", f"{raw['requests_during_swaps']:,.0f}"),
        ("of them failed or refused", f"{measured['failed_during_swaps'] + raw['refused_during_swaps']:.0f}"),
        ("from the new manifest to its first answer", f"{raw['seconds_to_swap']:.2f} s"),
        (
            "p99 of other tasks, with swaps over without",
            f"{measured['p99_with_over_without_swaps']:.2f}",
        ),
    ]
    return table(("measured", ""), rows)


def _encoder_bytes() -> int:
    return FLOAT32 * sum(math.prod(shape) for shape in VIT_B_32.parameter_shapes().values())


def _adapter_bytes() -> int:
    """The bytes of a task that changed every linear of every block by `RANK` directions."""
    layout = ExpertLayout(Factoring(VIT_B_32, "factored", FixedRankRule(rank=RANK)), "bfloat16")
    adapted = {weight_of(linear) for block in VIT_B_32.blocks() for linear in block.linears}
    ranks = {name: RANK if name in adapted else 0 for name in layout.factoring.shapes}
    specs = layout.tensor_specs(ranks).values()
    return sum(spec.dtype.itemsize * math.prod(spec.shape) for spec in specs if spec.dtype is not None)


def _recorded(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
