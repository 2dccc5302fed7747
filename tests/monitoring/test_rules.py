"""The rules by themselves: well-formed, tested, explained and used."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.monitoring import material

ALERTS = {rule["alert"]: rule for rule in material.rules("alert")}
RECORDED = {rule["record"]: rule["expr"] for rule in material.rules("record")}
RULE_TESTS = sorted((material.PROMETHEUS / "tests").glob("*.yml"))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.optional("prometheus")
def test_the_configuration_and_its_rules_are_valid(promtool: str) -> None:
    run(promtool, "check", "config", str(material.PROMETHEUS / "prometheus.yml"))
    run(promtool, "check", "rules", *map(str, (material.PROMETHEUS / "rules").glob("*.yml")))


@pytest.mark.optional("prometheus")
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(promtool: str, path: Path) -> None:
    run(promtool, "test", "rules", str(path))


@pytest.mark.optional("prometheus")
def test_a_wrong_expectation_fails(promtool: str, tmp_path: Path) -> None:
    """Or the test before would prove nothing: an alert that is not expected to fire does."""
    path = material.PROMETHEUS / "tests" / "availability.yml"
    wrong = path.read_text(encoding="utf-8").replace("../rules", str(material.PROMETHEUS / "rules"))
    wrong = wrong.replace(
        "eval_time: 5m\n      - alertname: MassServeDown", "eval_time: 7m\n      - alertname: MassServeDown"
    )
    (tmp_path / "wrong.yml").write_text(wrong, encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "wrong.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "MassServeDown, time: 7m" in done.stdout + done.stderr


def test_every_alert_is_seen_firing_and_seen_silent() -> None:
    seen = defaultdict(set)
    for question in material.rule_tests():
        seen[question["alertname"]].add(bool(question.get("exp_alerts")))
    assert dict(seen) == {name: {True, False} for name in ALERTS}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["description"].endswith(".")
    assert rule["annotations"]["runbook"] == f"docker/monitoring.md#{name.lower()}"


def test_the_runbook_has_a_section_for_every_alert_and_no_dead_link() -> None:
    text = material.RUNBOOK.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert headings == list(ALERTS)
    for label, anchor in re.findall(r"\[(\w+)\]\(#(\w+)\)", text):
        assert label in headings
        assert anchor == label.lower()


def test_the_runbook_speaks_of_panels_that_exist() -> None:
    titles = {panel["title"] for panel in material.panels()}
    titles |= {row["title"] for row in material.dashboard()["panels"] if row["type"] == "row"}
    mentioned = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", material.RUNBOOK.read_text(encoding="utf-8")))
    assert mentioned
    assert mentioned <= titles


def test_every_recorded_series_is_named_for_its_levels_and_used() -> None:
    used = set().union(*map(material.names, material.expressions()))
    assert set(RECORDED) <= used
    for name in RECORDED:
        level, metric, operation = name.split(":")
        assert set(level.split("_")) <= {"instance", "job", "stage", "task", "reason"}
        assert metric.startswith("mass_")
        assert operation
    assert {name for name in used if ":" in name} <= set(RECORDED)
