"""Prints dashboards/mass-serve.json. What a panel shows stands in the rows; `panels` knows how that is drawn.

python docker/grafana/generator > docker/grafana/dashboards/mass-serve.json
"""

from __future__ import annotations

import json
from typing import Any

from expressions import HERE, LOADS
from group_rows import GROUPS
from guard_rows import GUARDS
from model_rows import BATCHING, CACHE, COEFFICIENTS, MEMORY, ROUTING, SET_SIZES, STORE
from next_rows import NEXT
from panels import DATA_SOURCE
from service_rows import ERRORS, LATENCY, OVERVIEW, TRAFFIC

ROWS = [
    OVERVIEW,
    TRAFFIC,
    LATENCY,
    ROUTING,
    COEFFICIENTS,
    SET_SIZES,
    GROUPS,
    BATCHING,
    CACHE,
    MEMORY,
    ERRORS,
    GUARDS,
    STORE,
    NEXT,
]


def panels() -> list[dict[str, Any]]:
    """All rows, one below the other, numbered from 1."""
    made: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        made += row.to_json(len(made) + 1, y)
        y = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made)
    return made


def variables() -> list[dict[str, Any]]:
    """The choices at the top of the page."""
    instances = "label_values(mass_ready, instance)"
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "regex": "",
            "hide": 0,
            "refresh": 1,
        },
        {
            "name": "instance",
            "label": "Server",
            "type": "query",
            "datasource": DATA_SOURCE,
            "definition": instances,
            "query": {"query": instances, "refId": "instance"},
            "regex": "",
            "multi": True,
            "includeAll": True,
            "current": {"text": ["All"], "value": ["$__all"]},
            "hide": 0,
            "refresh": 2,
            "sort": 1,
        },
    ]


def loads_as_annotations() -> dict[str, Any]:
    """Marks on every panel where a server took a store revision up, because much else may change there."""
    return {
        "name": "Store loaded",
        "enable": True,
        "iconColor": "blue",
        "datasource": DATA_SOURCE,
        "expr": f"changes({LOADS}_count{HERE}[$__rate_interval]) > 0",
        "titleFormat": "Store loaded",
        "textFormat": "{{instance}}",
    }


def dashboard() -> dict[str, Any]:
    """The whole page."""
    return {
        "uid": "mass-serve",
        "title": "MASS Serve",
        "description": "One encoder, many classifiers: traffic, latency, routing, queue, memory, errors.",
        "tags": ["mass-serve"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": [loads_as_annotations()]},
        "templating": {"list": variables()},
        "panels": panels(),
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=2))
