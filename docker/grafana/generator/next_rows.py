"""The row about the store's next revision, as far as it answers a share of the traffic silently."""

from __future__ import annotations

from expressions import HERE, rate
from panels import COUNT, IMAGES, SHARE, Panel, Row, rising

COMPARED = rate("mass_shadow_compared_total", "task")
FLIPPED = rate("mass_shadow_flipped_total", "task")

NEXT = Row(
    "Next revision",
    [
        Panel(
            "Flipped by task",
            "Share of the images compared that the next revision answers otherwise, by the task that won.",
            SHARE,
            [(f"{FLIPPED} / {COMPARED}", "{{task}}")],
        ),
        Panel(
            "What flips",
            "What the next revision says otherwise: unrouted or no longer, another task, another label.",
            IMAGES,
            [(rate("mass_shadow_flips_total", "what"), "{{what}}")],
            stacked=True,
        ),
        Panel(
            "Compared and dropped",
            "Images that the next revision has answered, too, and those for which its queue had no room.",
            IMAGES,
            [
                (rate("mass_shadow_compared_total"), "compared"),
                (rate("mass_shadow_dropped_total"), "dropped"),
            ],
            width=8,
        ),
        Panel(
            "Failures of the next revision",
            "In 15 minutes: it could not be loaded, did not answer, or has no task of a name that was asked.",
            COUNT,
            [(f"sum by (what) (increase(mass_shadow_errors_total{HERE}[15m]))", "{{what}}")],
            width=8,
            thresholds=rising(1, 2),
        ),
        Panel(
            "Revision compared",
            "How many servers have loaded it.",
            COUNT,
            [(f"count by (revision) (mass_shadow_loaded{HERE} == 1)", "{{revision}}")],
            kind="table",
            width=8,
            value_name="Servers",
        ),
    ],
)
