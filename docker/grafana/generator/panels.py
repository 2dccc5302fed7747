"""The form of a dashboard: a panel and a row as Grafana's schema has them, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

GRID_WIDTH = 24
Thresholds = list[tuple[float | None, str]]

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


REQUESTS = "reqps"
SECONDS = "s"
BYTES = "bytes"
SHARE = "percentunit"
COUNT = "short"
IMAGES = "suffix: images/s"
SETS = "suffix: sets/s"
ANSWERS = "suffix: answers/s"
TASKS_ASKED = "suffix: tasks/s"
BATCHES = "suffix: batches/s"
TIMES = "suffix: times"


def rising(warn: float, alarm: float) -> Thresholds:
    """Fine, then a warning, then an alarm as the number grows."""
    return [(None, "green"), (warn, "orange"), (alarm, "red")]


def falling(alarm: float, warn: float | None = None) -> Thresholds:
    """An alarm below one value, a warning below another."""
    if warn is None:
        return [(None, "red"), (alarm, "green")]
    return [(None, "red"), (alarm, "orange"), (warn, "green")]


@dataclass(frozen=True)
class Panel:
    """One panel; `queries` are (expression, legend)."""

    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    thresholds: Thresholds | None = None
    stacked: bool = False
    highest: float | None = None
    value_name: str = "Value"  # the heading of a table's last column

    def to_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana's schema has it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATA_SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(i, *query) for i, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            "transformations": self._transformations(),
        }

    def _target(self, index: int, expression: str, legend: str) -> dict[str, Any]:
        now = self.kind in ("stat", "table")
        return {
            "refId": chr(ord("A") + index),
            "datasource": DATA_SOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": now,
            "range": not now,
            "format": {"table": "table", "heatmap": "heatmap"}.get(self.kind, "time_series"),
        }

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {"unit": self.unit, "thresholds": self._thresholds()}
        if self.kind == "heatmap":
            return {"custom": {"scaleDistribution": {"type": "linear"}}}
        if self.highest is not None:
            defaults["max"] = self.highest
        if self.kind == "stat":
            defaults["color"] = {"mode": "thresholds"}
        if self.kind == "timeseries":
            defaults["min"] = 0
            defaults["color"] = {"mode": "palette-classic"}
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 5,
                "showPoints": "auto",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if self.thresholds else "off"},
            }
        return defaults

    def _thresholds(self) -> dict[str, Any]:
        steps = self.thresholds or [(None, "green")]
        return {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in steps]}

    def _transformations(self) -> list[dict[str, Any]]:
        """A table is one of the labels: the time is that of all its lines."""
        if self.kind != "table":
            return []
        columns = {"excludeByName": {"Time": True}, "renameByName": {"Value": self.value_name}}
        return [{"id": "organize", "options": columns}]

    def _options(self) -> dict[str, Any]:
        if self.kind == "stat":
            named = any("{{" in legend for _, legend in self.queries)
            return {
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "colorMode": "value",
                "graphMode": "none",
                "textMode": "name" if named else "value",
                "justifyMode": "auto",
                "orientation": "auto",
                "wideLayout": True,
                "showPercentChange": False,
                "percentChangeColorMode": "standard",
            }
        if self.kind == "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {
                    "mode": "scheme",
                    "scheme": "Oranges",
                    "steps": 64,
                    "exponent": 0.5,
                    "reverse": False,
                    "fill": "orange",
                },
                "filterValues": {"le": 1e-9},
                "legend": {"show": True},
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
                "showValue": "never",
                "tooltip": {"mode": "single", "yHistogram": True},
                "yAxis": {"unit": self.unit, "axisPlacement": "left"},
            }
        if self.kind == "table":
            return {"showHeader": True, "cellHeight": "sm", "frameIndex": 0}
        return {
            "legend": {
                "displayMode": "table",
                "placement": "right",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }


def stat(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[tuple[str, str]],
    width: int = 4,
    thresholds: Thresholds | None = None,
) -> Panel:
    """One number, as it is now."""
    return Panel(title, description, unit, queries, "stat", width, 4, thresholds)


@dataclass(frozen=True)
class Row:
    """A heading and its panels, left to right."""

    title: str
    panels: Sequence[Panel]

    def to_json(self, first_number: int, y: int) -> Iterator[dict[str, Any]]:
        """The heading, then the panels, wrapped at the width of the grid."""
        yield {
            "id": first_number,
            "type": "row",
            "title": self.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": GRID_WIDTH, "h": 1},
            "panels": [],
        }
        x, y, line_height = 0, y + 1, 0
        for number, panel in enumerate(self.panels, first_number + 1):
            if x + panel.width > GRID_WIDTH:
                x, y, line_height = 0, y + line_height, 0
            yield panel.to_json(number, x, y)
            x, line_height = x + panel.width, max(line_height, panel.height)
