"""The tables of the page on Ray: its own settings, and what `python -m benchmarks.distributed` recorded."""

from __future__ import annotations

import json
from typing import Any

from docs.markup import table
from docs.suites import RESULTS
from docs.tables import settings_rows
from mass_serve.distributed.settings import RaySettings
from mass_serve.server.settings import Settings


def ray_settings_table() -> str:
    """The settings that a server by itself does not have."""
    names = [name for name in RaySettings.model_fields if name not in Settings.model_fields]
    own = {name: RaySettings.model_fields[name] for name in names}
    return table(("setting", "default", "allowed", "meaning"), settings_rows(own))


def ray_measured_table() -> str:
    """The rates of both, their ratios, and how busy the machine was."""
    recorded, ratios = _recorded(), halves_over_whole()
    rates, loads = recorded["images_a_second"], recorded["load_average"]
    rows = [
        (f"one replica with {recorded['cores']} cores", f"{_range(rates['whole'])} images a second"),
        (f"two with {recorded['cores'] // 2} each", f"{_range(rates['halves'])} images a second"),
        ("two over one, in the same round", f"{min(ratios):.2f} to {max(ratios):.2f}"),
        ("load average of the machine meanwhile", _range(loads)),
    ]
    return table(("measured", ""), rows)


def halves_over_whole() -> list[float]:
    """Of each round, the rate of two replicas with half of the cores each over that of one with all."""
    rates = _recorded()["images_a_second"]
    return [two / one for one, two in zip(rates["whole"], rates["halves"], strict=True)]


def _recorded() -> Any:
    return json.loads((RESULTS / "distributed_cpu.json").read_text(encoding="utf-8"))


def _range(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
