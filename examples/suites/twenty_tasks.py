"""Twenty tasks: the demo's eight, seven more scripts and kinds of symbols, and five of drawn things.

Letters and symbols are held out by the families of their fonts, scans by their writers; what is drawn by
rules is held out by its random numbers alone. The demo's encoder was pretrained on the classes of the last
four; the weak one on none of the twenty.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from examples.demo_suite import shapes
from examples.demo_suite.canvas import Pixels, Point, photograph
from examples.demo_suite.foundation_objects import draw_object
from examples.demo_suite.foundation_scenes import draw_scene
from examples.demo_suite.foundation_surfaces import PATTERNS, draw_surface
from examples.demo_suite.request import Request
from examples.demo_suite.signs import BLACK, YELLOW, Layer, paint, roadside
from examples.demo_suite.tasks import TASKS as DEMO_TASKS
from examples.demo_suite.tasks import Draw, Task
from examples.suites.scripts import SCRIPTS

# What the yellow diamonds of some countries warn of.
WARNINGS: dict[str, list[Point]] = {
    "high_voltage": shapes.BOLT,
    "curve_left": shapes.ARROW_LEFT,
    "curve_right": shapes.ARROW_RIGHT,
    "two_way": shapes.BOW_TIE,
    "crossroads": shapes.PLUS,
    "houses": shapes.HOUSE,
    "steep_hill": shapes.TRIANGLE,
    "ice": shapes.star(8, 0.6),
    "roundabout": shapes.CIRCLE,
    "side_road": shapes.LETTER_T,
}
OUTLINES = ("heart", "clover", "gear", "crescent", "plus", "house", "bolt", "bow_tie")
LAND_USE = ("runway", "stadium", "solar_farm", "archipelago", "railway", "dunes", "glacier")
VIEWS = ("skyline", "sky", "sunset", "stars", "mountains", "room")


def draw_warning(request: Request, rng: np.random.Generator) -> Pixels:
    """One photograph of a yellow diamond with its symbol."""
    canvas = roadside(rng)
    edge, plate = Layer(shapes.DIAMOND, BLACK), Layer(shapes.DIAMOND, YELLOW, 0.9)
    paint(canvas, (edge, plate, Layer(WARNINGS[request.label], BLACK, 0.5)), rng)
    return photograph(canvas, rng, blur=(0.3, 1.6), noise=(1.0, 9.0))


def draw_outline(request: Request, rng: np.random.Generator) -> Pixels:
    """One photograph of the named shape on a plain or a blotched ground."""
    return draw_object(request.label, ("plain", "blotched")[rng.integers(2)], rng)


def by_label(draw: Callable[[str, np.random.Generator], Pixels]) -> Draw:
    """A generator that needs the label alone, as a task's."""
    return lambda request, rng: draw(request.label, rng)


TASKS = (
    *DEMO_TASKS,
    *(Task(name, tuple(script.letters), script.draw) for name, script in SCRIPTS.items()),
    Task("warnings", tuple(WARNINGS), draw_warning),
    Task("outlines", OUTLINES, draw_outline),
    Task("surfaces", tuple(PATTERNS), by_label(draw_surface)),
    Task("land_use", LAND_USE, by_label(draw_scene)),
    Task("views", VIEWS, by_label(draw_scene)),
)
