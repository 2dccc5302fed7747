"""The metrics of the device's process and of all front ends, for whichever of them is asked."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import wait

from mass_serve.server.fronts.desk import Desk
from mass_serve.server.operation.expositions import merged
from mass_serve.server.operation.metrics import Metrics

LABEL = "process"
# A front end that starts, or is busier than that, is not waited for.
RENDER_SECONDS = 2.0


def exposition_of_all(own: Metrics, desks: Sequence[Desk]) -> bytes:
    """Returns the metrics of every process that tells its own in time."""
    asked = {desk.name: desk.rendered() for desk in desks}
    wait(asked.values(), RENDER_SECONDS)
    told = {name: future.result().decode() for name, future in asked.items() if future.done()}
    return merged({"device": own.render().decode(), **told}, LABEL).encode()
