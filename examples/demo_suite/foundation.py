"""The pretraining pictures: what is drawn, of what kind it is and in which look, each a label of its own.

Nothing here is a class of a task, and no font here is one that the held-out pictures use.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain

import numpy as np

from examples.demo_suite.canvas import Pixels
from examples.demo_suite.foundation_letters import LOOKS, SCRIPTS, draw_letter, letters_of
from examples.demo_suite.foundation_objects import GROUNDS, OUTLINES, draw_object
from examples.demo_suite.foundation_scenes import SCENES, draw_scene
from examples.demo_suite.foundation_surfaces import PATTERNS, draw_surface

Shares = tuple[float, float, float, float]

# Shares of letters, shapes, surfaces and scenes among the pictures.
SHARES: Shares = (0.58, 0.16, 0.14, 0.12)
SEED = 20_250_404
CHUNK = 2_000


@dataclass(frozen=True)
class Subject:
    """Holds what one picture shows; the three names are the labels of three heads."""

    content: str
    kind: str
    look: str


@dataclass(frozen=True)
class FoundationPictures:
    """Pixels [N, 32, 32, 3] in uint8, and the numbers of each picture's content, kind and look [N, 3]."""

    pixels: Pixels
    labels: np.ndarray


def contents() -> Iterator[tuple[str, str]]:
    """All (content, kind) pairs in a fixed order."""
    letters = ((letter, script) for script in SCRIPTS for letter in letters_of(script))
    objects = ((f"object {name}", "object") for name in OUTLINES)
    surfaces = ((f"surface {name}", "surface") for name in PATTERNS)
    scenes = ((f"scene {name}", "scene") for name in SCENES)
    return chain(letters, objects, surfaces, scenes)


@cache
def vocabulary() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """The numbers of all contents, kinds and looks."""
    pairs = list(contents())
    looks = [*LOOKS, *GROUNDS, "surface", "scene"]
    names = ([c for c, _ in pairs], [k for _, k in pairs], looks)
    content, kind, look = ({name: k for k, name in enumerate(dict.fromkeys(group))} for group in names)
    return content, kind, look


def _one_of(names: list[str], rng: np.random.Generator) -> str:
    return names[rng.integers(len(names))]


def draw_subject(rng: np.random.Generator, shares: Shares = SHARES) -> tuple[Pixels, Subject]:
    """One picture and what it shows."""
    group = rng.choice(4, p=shares)
    if group == 0:
        script, look = _one_of(list(SCRIPTS), rng), _one_of(list(LOOKS), rng)
        letter = _one_of(list(letters_of(script)), rng)
        return draw_letter(letter, look, rng), Subject(letter, script, look)
    if group == 1:
        name, ground = _one_of(list(OUTLINES), rng), _one_of(list(GROUNDS), rng)
        return draw_object(name, ground, rng), Subject(f"object {name}", "object", ground)
    if group == 2:
        name = _one_of(list(PATTERNS), rng)
        return draw_surface(name, rng), Subject(f"surface {name}", "surface", "surface")
    name = _one_of(list(SCENES), rng)
    return draw_scene(name, rng), Subject(f"scene {name}", "scene", "scene")


def draw_chunk(number: int, shares: Shares = SHARES) -> tuple[Pixels, np.ndarray]:
    """The chunk of CHUNK pictures with this number."""
    rng = np.random.default_rng([SEED, number])
    content, kind, look = vocabulary()
    drawn = [draw_subject(rng, shares) for _ in range(CHUNK)]
    labels = [(content[s.content], kind[s.kind], look[s.look]) for _, s in drawn]
    return np.stack([pixels for pixels, _ in drawn]), np.asarray(labels)


def draw_foundation(count: int, workers: int, shares: Shares = SHARES) -> FoundationPictures:
    """`count` pictures (rounded up to whole chunks), the same whatever the number of workers."""
    # Finding the letters takes seconds, and forked workers inherit what is found here.
    vocabulary()
    with ProcessPoolExecutor(workers) as pool:
        chunks = list(pool.map(partial(draw_chunk, shares=shares), range(-(-count // CHUNK))))
    return FoundationPictures(np.concatenate([p for p, _ in chunks]), np.concatenate([n for _, n in chunks]))
