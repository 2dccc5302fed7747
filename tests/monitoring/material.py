"""What is tested: the rules and the dashboard, read into plain values, and the names in their expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
RUNBOOK = ROOT / "docker" / "monitoring.md"

# A metric's name, as nothing else in PromQL that is written here begins.
NAME = re.compile(r"(?<![\w:])(?:mass_|process_|up\b|ALERTS\b|[a-z_]+:)[\w:]*")
SELECTOR = re.compile(rf"{NAME.pattern}(?:\{{[^}}]*\}})?")
STRING = re.compile(r'"[^"]*"')
DERIVED = re.compile(r"_(?:bucket|sum|count|total)$")


def read_yaml(path: Path) -> Any:
    """A file's content."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Query:
    """One expression of a panel."""

    panel: str
    expression: str
    legend: str


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules of a kind: "record" or "alert"."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    found = [rule for file in files for group in read_yaml(file)["groups"] for rule in group["rules"]]
    return [rule for rule in found if kind in rule]


def rule_tests() -> list[dict[str, Any]]:
    """Every question that the promtool tests ask about an alert."""
    files = sorted((PROMETHEUS / "tests").glob("*.yml"))
    tests = [test for file in files for test in read_yaml(file)["tests"]]
    return [question for test in tests for question in test.get("alert_rule_test", [])]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana gets it."""
    text = (GRAFANA / "dashboards" / "mass-serve.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Every expression of every panel."""
    return [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]


def marks() -> list[str]:
    """The expressions behind the dashboard's marks."""
    return [annotation["expr"] for annotation in dashboard()["annotations"]["list"]]


def expressions() -> list[str]:
    """Every expression there is."""
    in_rules = [rule["expr"] for kind in ("record", "alert") for rule in rules(kind)]
    return in_rules + [query.expression for query in queries()] + marks()


def names(expression: str) -> set[str]:
    """The metrics and recorded series that an expression reads."""
    return set(NAME.findall(STRING.sub('""', expression)))


def selectors(expression: str) -> Iterator[str]:
    """The same with their label matchers, such as `up{job="mass-serve"}`."""
    for match in SELECTOR.finditer(expression):
        inside_a_string = expression[: match.start()].count('"') % 2
        if not inside_a_string:
            yield match.group()


def family(name: str) -> str:
    """The metric family of a sample's name."""
    return DERIVED.sub("", name)
