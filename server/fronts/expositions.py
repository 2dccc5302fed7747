"""The metrics of the device's process and of all front ends, for whichever of them is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import wait

import structlog

from mass_serve.server.fronts.desk import Desk
from mass_serve.server.operation.expositions import merged
from mass_serve.server.operation.metrics import Metrics

LABEL = "process"
# A front end that starts, or is busier than that, is not waited for.
RENDER_SECONDS = 2.0

# What a line may be. The library's parser takes 30 times as long, and the device's threads wait meanwhile.
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
PAIR = rf'(?!{LABEL}=)[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\["\\n])*"'
NUMBER = r"NaN|[-+]?(?:Inf|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
LINE = re.compile(
    rf"# HELP {NAME} .*|# TYPE {NAME} (?:counter|gauge|histogram|summary|untyped)"
    rf"|{NAME}(?:\{{{PAIR}(?:,{PAIR})*\}})? (?:{NUMBER})",
    re.ASCII,
)

log = structlog.get_logger(__name__)


def exposition_of_all(own: Metrics, desks: Sequence[Desk]) -> bytes:
    """Returns the metrics of every process that tells its own in time, and in Prometheus' text format."""
    asked = {desk.name: desk.rendered() for desk in desks}
    wait(asked.values(), RENDER_SECONDS)
    expositions = {"device": own.render().decode()}
    for name, future in asked.items():
        if not future.done():
            continue
        if (text := _text(future.result())) is None:
            log.error("what a front end tells as its metrics is left out, as it is none", front_end=name)
        else:
            expositions[name] = text
    return merged(expositions, LABEL).encode()


def _text(told: bytes) -> str | None:
    """Returns an exposition; None for what is none, with which Prometheus would refuse all of the page."""
    try:
        text = told.decode()
    except UnicodeDecodeError:
        return None
    return text if all(LINE.fullmatch(line) for line in text.splitlines()) else None
