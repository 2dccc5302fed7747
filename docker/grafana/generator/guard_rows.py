"""The row about what keeps one caller from starving the others."""

from __future__ import annotations

from expressions import HERE, rate
from panels import BYTES, COUNT, REQUESTS, SHARE, Panel, Row, rising

CONNECTIONS = "suffix: connections/s"

GUARDS = Row(
    "Guards",
    [
        Panel(
            "Oldest work",
            "Age of the oldest work of each kind, on the worst server, of the age at which it is given up.",
            SHARE,
            [(f"max by (what) (mass_oldest_seconds{HERE} / mass_oldest_limit_seconds{HERE})", "{{what}}")],
            thresholds=rising(0.5, 0.8),
        ),
        Panel(
            "Held bytes",
            "Of bodies, counted by what they become, and how many there may be.",
            BYTES,
            [
                (f"mass_held_bytes{HERE}", "{{instance}} held"),
                (f"mass_held_bytes_capacity{HERE}", "{{instance}} allowed"),
            ],
        ),
        Panel(
            "Dropped connections",
            "Closed by the server before their time, or never taken, by reason.",
            CONNECTIONS,
            [(rate("mass_connections_dropped_total", "reason"), "{{reason}}")],
        ),
        Panel(
            "Replaced workers",
            "Sandboxed workers, in 15 minutes, by the bound that they broke.",
            COUNT,
            [(f"sum by (reason) (increase(mass_workers_replaced_total{HERE}[15m]))", "{{reason}}")],
        ),
        Panel(
            "Requests by key",
            "By the name of the key; `none` came without one.",
            REQUESTS,
            [(rate("mass_key_requests_total", "key"), "{{key}}")],
            stacked=True,
        ),
        Panel(
            "Requests beyond the rate of their key",
            "Refused with 429, by the name of the key.",
            REQUESTS,
            [(rate("mass_key_rate_limited_total", "key"), "{{key}}")],
            stacked=True,
        ),
        Panel(
            "Wrong keys",
            "Requests with a key that opens nothing.",
            REQUESTS,
            [(rate("mass_wrong_keys_total", "instance"), "{{instance}}")],
        ),
    ],
)
