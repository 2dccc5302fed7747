"""The dashboard by itself: complete, in order, and what its generator prints."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import combinations
from typing import Any

from tests.monitoring import material

ROWS = (
    "Overview",
    "Traffic",
    "Latency by stage",
    "Routing per task",
    "Coefficient distribution",
    "Set sizes",
    "Inputs judged together",
    "Batching and queue",
    "Cache",
    "Memory",
    "Errors",
    "Guards",
    "Store revisions",
    "Next revision",
)
GRID_WIDTH = 24


def test_the_json_is_what_the_generator_prints() -> None:
    command = [sys.executable, "-B", str(material.GRAFANA / "generator")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (material.GRAFANA / "dashboards" / "mass-serve.json").read_text(encoding="utf-8") == printed


def test_it_can_be_found_and_has_all_rows() -> None:
    dashboard = material.dashboard()
    assert dashboard["uid"] == "mass-serve"
    assert tuple(panel["title"] for panel in dashboard["panels"] if panel["type"] == "row") == ROWS
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert sorted(set(numbers)) == numbers
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "instance"}


def test_no_panel_covers_another() -> None:
    places = [panel["gridPos"] for panel in material.dashboard()["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= GRID_WIDTH for place in places)
    for one, other in combinations(places, 2):
        assert not (_overlap(one, other, "x", "w") and _overlap(one, other, "y", "h"))


def _overlap(one: dict[str, int], other: dict[str, int], start: str, size: str) -> bool:
    return one[start] < other[start] + other[size] and other[start] < one[start] + one[size]


def test_every_panel_says_what_it_shows_and_asks_the_chosen_source() -> None:
    titles = [panel["title"] for panel in material.panels()]
    assert len(set(titles)) == len(titles)
    for panel in material.panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_units_fit_what_is_measured() -> None:
    for panel in material.panels():
        for target in panel["targets"]:
            assert _unit(panel) == _expected_unit(target["expr"], _unit(panel)), panel["title"]


def _unit(panel: dict[str, Any]) -> str:
    axis = panel["options"].get("yAxis", panel["fieldConfig"]["defaults"])
    return str(axis["unit"])


def _expected_unit(expression: str, unit: str) -> str:
    """What the names in the expression say; the unit itself where they say nothing."""
    if re.search(r"_bytes\b", expression):
        return "bytes"
    if re.search(r"duration_seconds(_bucket|:)|duration_seconds_sum.* / |^min\(time\(\) - ", expression):
        return "s"
    if (":ratio" in expression and "/ 0.001" not in expression) or ":share" in expression:
        return "percentunit"
    if re.match(r"sum( by \(\w+\))? \(rate\(mass_(requests|rejected)_total", expression):
        return "reqps"
    return unit


def test_what_is_shared_with_prometheus_agrees() -> None:
    """$__rate_interval depends on the scrape interval that the data source is told."""
    (source,) = material.read_yaml(material.GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")[
        "datasources"
    ]
    config = material.read_yaml(material.PROMETHEUS / "prometheus.yml")
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert source["type"] == "prometheus"
    (provider,) = material.read_yaml(material.GRAFANA / "provisioning" / "dashboards" / "mass-serve.yaml")[
        "providers"
    ]
    assert provider["type"] == "file"
