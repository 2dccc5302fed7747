"""Images that no task covers, in the evaluation; and the figure that says how well they are told."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.evaluation import EvaluationData, EvaluationDataError, Options, files_of
from mass_serve.evaluation.data import of_whole_inputs
from mass_serve.evaluation.evaluate import evaluate
from mass_serve.evaluation.measures import auroc
from mass_serve.inputs.images import ImageLimits, decode_image
from tests import tiny


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny.loaded_store(tasks=3, mode="exact"), Execution.LOW_RANK, 1 << 30)


def write(folder: Path, count: int, seed: int) -> list[Path]:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return paths


def familiarity(engine: Engine, paths: list[Path]) -> list[float]:
    answers = engine.classify([decode_image(path.read_bytes(), ImageLimits(10**6)) for path in paths])
    return [answer.familiarity or 0.0 for answer in answers]


def test_the_figures_are_those_of_the_answers(engine: Engine, tmp_path: Path) -> None:
    inside = write(tmp_path / "data" / "task0" / "class 0", 6, 0)
    outside = {name: write(tmp_path / "ood" / name, 4, seed) for seed, name in enumerate("ab", start=1)}
    labels = of_whole_inputs(engine.tasks)
    options = Options(unfamiliar=tmp_path / "ood")
    found = evaluate(engine, EvaluationData(tmp_path / "data", labels, files_of(engine)), options=options)[
        "unfamiliar"
    ]
    assert found is not None
    for name, paths in outside.items():
        assert found["domains"][name]["images"] == 4
        expected = auroc(familiarity(engine, inside), familiarity(engine, paths))
        assert found["domains"][name]["auroc"] == pytest.approx(expected)
    assert found["average"]["images"] == 8


def test_a_folder_without_images_is_named(engine: Engine, tmp_path: Path) -> None:
    write(tmp_path / "data" / "task0" / "class 0", 1, 0)
    (tmp_path / "ood" / "empty").mkdir(parents=True)
    labels = of_whole_inputs(engine.tasks)
    with pytest.raises(EvaluationDataError, match="empty holds no images: add some, or delete it"):
        evaluate(
            engine,
            EvaluationData(tmp_path / "data", labels, files_of(engine)),
            options=Options(unfamiliar=tmp_path / "ood"),
        )


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = random.Random(0)
    positives = [rng.randrange(6) / 5 for _ in range(40)]
    negatives = [rng.randrange(5) / 5 for _ in range(30)]
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert auroc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc([2.0, 3.0], [1.0]) == 1.0
    assert auroc([1.0], [1.0]) == 0.5
