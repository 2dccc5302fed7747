"""Every expression against a real Prometheus that scraped a real server under load."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring import material
from tests.monitoring.conftest import Watched

pytestmark = pytest.mark.optional("prometheus")

# Every answer that the traffic provokes, so that no series stands at zero all the time by mistake.
PROVOKED = {200, 400, 404, 405, 415, 429, 504}
PROCESS_METRICS = {"up", "ALERTS"}


def exported(watched: Watched) -> dict[str, str]:
    """The type of every metric family of the server, but for the times that the library adds itself."""
    families = text_string_to_metric_families(watched.server.get("/metrics").text)
    return {family.name: family.type for family in families if not family.name.endswith("_created")}


def is_number(text: str) -> bool:
    return math.isfinite(float(text))


def test_the_traffic_was_mixed(watched: Watched) -> None:
    assert set(watched.statuses) == PROVOKED


def test_some_images_were_unrouted_and_others_not(watched: Watched) -> None:
    """Or the share of the unrouted would be a number all the same: a zero."""
    (share,) = watched.query("job:mass_unrouted_images:ratio_rate30m")
    assert 0 < float(share["value"][1]) < 1


@pytest.mark.parametrize("query", material.queries(), ids=lambda query: f"{query.panel}: {query.legend}")
def test_no_panel_is_empty_and_legends_can_be_filled(watched: Watched, query: material.Query) -> None:
    now = watched.query(query.expression)
    assert any(is_number(series["value"][1]) for series in now), now
    over_time = watched.query_range(query.expression)
    values = [value for series in over_time for _, value in series["values"]]
    assert any(map(is_number, values)), over_time
    labels = set(re.findall(r"{{(\w+)}}", query.legend))
    assert all(labels <= set(series["metric"]) for series in now + over_time)
    _lines_can_be_told_apart(now, labels)


def _lines_can_be_told_apart(series: list[dict[str, Any]], labels: set[str]) -> None:
    legends = {tuple(one["metric"][label] for label in sorted(labels)) for one in series}
    assert len(legends) == len(series)


def test_the_marks_are_no_error(watched: Watched) -> None:
    """They may be empty: nothing needs to have been loaded lately."""
    for expression in material.marks():
        watched.query(expression)


def test_the_server_can_be_chosen(watched: Watched) -> None:
    assert watched.ask("label/instance/values", **{"match[]": "mass_ready"}) == [watched.instance]


def test_every_rule_is_evaluated_and_every_recorded_series_exists(watched: Watched) -> None:
    for group in watched.ask("rules")["groups"]:
        for rule in group["rules"]:
            assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]
    for rule in material.rules("record"):
        assert any(is_number(series["value"][1]) for series in watched.query(rule["record"])), rule["record"]


def test_nothing_fires_over_a_server_that_is_well(watched: Watched) -> None:
    alerts = watched.ask("alerts")["alerts"]
    assert [alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"] == []


def test_every_selector_of_a_rule_matches_something(watched: Watched) -> None:
    """An alert with a misspelt label or value would be silent for ever."""
    for rule in material.rules("record") + material.rules("alert"):
        for selector in material.selectors(rule["expr"]):
            assert watched.query(f"count({selector})"), (rule.get("alert", rule.get("record")), selector)


def test_expressions_read_what_the_server_exports_and_leave_nothing_out(watched: Watched) -> None:
    used = set().union(*map(material.names, material.expressions()))
    read = {material.family(name) for name in used if ":" not in name} - PROCESS_METRICS
    families = set(exported(watched))
    assert read <= families
    assert {name for name in families if name.startswith("mass_")} <= read


def test_rates_are_taken_of_counters_only(watched: Watched) -> None:
    types = exported(watched)
    counted = {
        name
        for text in material.expressions()
        for name in re.findall(r"(?:rate|increase)\(([a-z]\w*)[{\[]", text)
    }
    assert counted
    for name in counted:
        assert types[material.family(name)] in ("counter", "histogram"), name
