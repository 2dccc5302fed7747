"""The settings, the modes and the metrics, as tables of the program's own words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, Literal, get_args, get_origin

from prometheus_client import CollectorRegistry
from pydantic.fields import FieldInfo

from docs.markup import code, table
from mass_serve.engine import EngineOptions
from mass_serve.engine.options import DEVICES
from mass_serve.router.modes import MODES
from mass_serve.server.operation.metrics import Metrics
from mass_serve.server.settings import Settings

UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"))
# The attributes by which annotated types bound a number, and how a reader calls them.
BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))


def settings_table() -> str:
    """Every setting of `mass-serve serve`: default, allowed values, meaning."""
    return table(("setting", "default", "allowed", "meaning"), settings_rows(Settings.model_fields))


def settings_rows(fields: Mapping[str, FieldInfo]) -> list[tuple[str, str, str, str]]:
    """A row for each setting."""
    return [
        (code(name), _default(name, field), _allowed(name, field), field.description or "")
        for name, field in fields.items()
    ]


def _default(name: str, field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "depends on the machine"
    if field.default is None:
        return "none"
    if name.endswith("_bytes") and field.default:
        for unit, called in UNITS:
            if field.default % unit == 0:
                return f"{field.default // unit} {called}"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return _grouped(field.default) if isinstance(field.default, int | float) else str(field.default)


def _allowed(name: str, field: FieldInfo) -> str:
    if name == "device":
        return ", ".join(code(device) for device in DEVICES)
    if choices := list(_choices(field.annotation)):
        return ", ".join(code(value) for value in choices)
    return ", ".join(_bounds(field))


def _choices(annotation: Any) -> Iterator[str]:
    """Yields the words of the Literal types and enumerations in an annotation or its union."""
    for choice in (annotation, *get_args(annotation)):
        if get_origin(choice) is Literal:
            yield from get_args(choice)
        elif isinstance(choice, type) and issubclass(choice, StrEnum):
            yield from choice


def _bounds(field: FieldInfo) -> Iterator[str]:
    for constraint in field.metadata:
        for attribute, called in BOUNDS:
            if (bound := getattr(constraint, attribute, None)) is not None:
                yield f"{called} {_grouped(bound)}"


def _grouped(number: float) -> str:
    """Thousands are set apart in large numbers only, so that a port or a status reads as one."""
    return f"{number:,}".removesuffix(".0") if number >= 100_000 else f"{number:g}"


def modes_table() -> str:
    """The numbers that make a mode what it is: `router.modes.MODES`."""
    names = [field.name for field in fields(next(iter(MODES.values())))]
    rows = [(code(mode), *(_number(getattr(value, name)) for name in names)) for mode, value in MODES.items()]
    return table(("mode", *(code(name) for name in names)), rows)


def _number(value: float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if math.isinf(value):
        return "never" if value > 0 else "always"
    return f"{value:g}"


def metrics_table() -> str:
    """Every metric of the service: name, kind, labels, meaning."""
    return table(("metric", "kind", "labels", "meaning"), metric_rows())


def metric_rows() -> list[tuple[str, str, str, str]]:
    """The rows of `metrics_table`."""
    return sorted(_metrics(Metrics(EngineOptions().labels).registry))


def _metrics(registry: CollectorRegistry) -> Iterator[tuple[str, str, str, str]]:
    labels = {
        name: getattr(collector, "_labelnames", ())
        for collector, names in registry._collector_to_names.items()
        for name in names or ()
    }
    for family in registry.collect():
        if not family.name.startswith("mass_"):
            continue  # of the process, as every Python program has them
        known = labels.get(family.name) or getattr(family, "_labelnames", None) or ()
        name = family.name + "_total" * (family.type == "counter")
        yield code(name), family.type, ", ".join(code(label) for label in known), family.documentation
