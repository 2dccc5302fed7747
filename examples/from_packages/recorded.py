"""Figures of a demo's reports, as both demos record them."""

from __future__ import annotations

from typing import Any

ROUTED = ("accuracy", "normalised_accuracy", "router_accuracy", "mean_passes")


def average(report: Any, name: str) -> float | None:
    """The average accuracy of a baseline."""
    value: float | None = report["average"]["baselines"][name]
    return value


def of_mode(report: Any, mode: str) -> dict[str, Any]:
    """The averages of a mode, with the interval of its accuracy."""
    figures = report["methods"][mode]["average"]
    return {name: figures[name] for name in ROUTED} | {"interval": figures["intervals"]["accuracy"]}
