"""The table of what decoding JPEGs at a part of their size changes, from recorded runs."""

from __future__ import annotations

import json

from docs.markup import code, table
from docs.suites import RESULTS

SUITES = ("real_vision",)


def scaled_decoding_table() -> str:
    """A row for each suite and size of files."""
    head = (
        *(
            "suite",
            "shortest edge over the store's",
            "images",
            "accuracy, exact",
            "scaled",
            "answers that differ",
        ),
        *("largest difference of a logit, mean", "99 % below", "decoding an image, exact", "scaled"),
    )
    rows = [
        (
            *(code(name), f"{one['times']} times", f"{one['images']:,}"),
            *(f"{one[key]:.3f}" for key in ("accuracy_exact", "accuracy_scaled")),
            f"{one['answers_changed']:.1%}",
            *(f"{one[key]:.3f}" for key in ("logit_difference_mean", "logit_difference_p99")),
            *(f"{one[key]:.2f} ms" for key in ("milliseconds_exact", "milliseconds_scaled")),
        )
        for name in SUITES
        for one in json.loads((RESULTS / f"scaled_decoding_{name}.json").read_text(encoding="utf-8"))
    ]
    return table(head, rows)
