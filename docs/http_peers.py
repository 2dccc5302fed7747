"""The table of requests a second beside other servers, from a recorded run."""

from __future__ import annotations

import json

from docs.markup import table
from docs.suites import RESULTS

RECORDED = RESULTS / "http_peers_cpu.json"


def http_peers_table() -> str:
    """A row for each kind of picture and server."""
    head = (
        *("pictures", "server", "requests a second", "processor time of a request", "p50", "p99"),
        "ours over the better of the others",
    )
    rows = [
        (
            *(kind, server, f"{one['requests_per_second']:.0f}", f"{one['processor_milliseconds']:.2f} ms"),
            *(f"{one[key]:.0f} ms" for key in ("milliseconds_p50", "milliseconds_p99")),
            f"{found['over_best_peer'][server]:.2f}" if server in found["over_best_peer"] else "",
        )
        for kind, found in json.loads(RECORDED.read_text(encoding="utf-8")).items()
        for server, one in found["servers"].items()
    ]
    return table(head, rows)
