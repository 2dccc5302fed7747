"""A store of format version 1 as the first release wrote it, and the answers that it gave."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mass_serve.engine import Classification, Engine, Query
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.manifest import parse_manifest
from mass_serve.model_store.store import Store
from mass_serve.router import MODES, PAPER, Evidence

FOLDER = Path(__file__).parent.parent / "fixtures" / "store_v1"
STORE = FOLDER / "store"
ANSWERS: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "answers.json").read_text())
# Other processors and libraries round otherwise; these answers are far from where that would turn one.
CLOSE = 1e-5


def test_it_is_whole_and_its_manifest_has_the_bytes_that_would_be_written_today() -> None:
    store = Store.open(STORE)
    assert store.verify() == []
    content = (STORE / "manifest.json").read_bytes()
    assert parse_manifest(content).to_bytes() == content
    assert list(store.manifest.history) == ["signs"]
    assert store.manifest.calibrated_tasks(["digits", "street", "signs"]) == (0, 1, 2)


def answers(mode: str) -> list[Classification]:
    """What the engine says of the fixture's pictures: of each, then of two whose tasks were named."""
    engine = Engine.load(str(STORE), mode=mode)
    pictures = [Image.open(path).convert("RGB") for path in sorted((FOLDER / "pictures").iterdir())]
    pixels = [engine.preprocessing.preprocess(picture) for picture in pictures]
    named = [Query(pixels[0], ("street",)), Query(pixels[1], ("digits", "signs"))]
    return engine.classify_batch([*map(Query, pixels), *named]).all_answers()


def assert_close(found: object, recorded: object, what: str) -> None:
    """Floats of the record are hexadecimal strings; names, numbers of tasks and the like must be equal."""
    if isinstance(found, torch.Tensor):
        found = found.flatten().tolist()
    if isinstance(found, float):
        assert isinstance(recorded, str), what
        assert math.isclose(found, float.fromhex(recorded), rel_tol=CLOSE, abs_tol=CLOSE), what
    elif isinstance(found, Mapping):
        assert isinstance(recorded, dict), what
        assert list(found) == list(recorded), what
        for key, value in found.items():
            assert_close(value, recorded[key], f"{what}.{key}")
    elif isinstance(found, list | tuple):
        assert isinstance(recorded, list), what
        assert len(found) == len(recorded), what
        for place, (one, other) in enumerate(zip(found, recorded, strict=True)):
            assert_close(one, other, f"{what}[{place}]")
    else:
        assert found == recorded, what


@pytest.mark.parametrize("mode", [PAPER, *MODES])
def test_it_gives_the_answers_that_it_gave(mode: str) -> None:
    found, recorded = answers(mode), ANSWERS[mode]
    assert len(found) == len(recorded) == 8
    for number, (answer, fields) in enumerate(zip(found, recorded, strict=True)):
        for field, value in fields.items():
            own = getattr(answer, field)
            own = own.kinds if isinstance(own, Evidence) else own
            assert_close(own, value, f"{mode}, picture {number}: {field}")


def test_the_record_is_worth_comparing_with() -> None:
    """It has every mode, several tasks, sets of several tasks, and answers that no task is believed of."""
    assert ANSWERS.keys() == {PAPER, *MODES}
    fields = [answer for of_mode in ANSWERS.values() for answer in of_mode]
    assert {answer["task"] for answer in fields} == {"digits", "street", "signs"}
    assert {len(answer["expert_set"]) for answer in fields} == {1, 2}
    assert {answer["unrouted"] for answer in fields} == {True, False}
    assert any(float.fromhex(answer["familiarity"]) > 0.05 for answer in fields if answer["familiarity"])
    logits = [float.fromhex(value) for answer in fields for value in answer["logits"]]
    assert max(map(abs, logits)) > 10


def test_a_mode_that_the_router_does_not_have_is_refused_when_the_store_is_served(tmp_path: Path) -> None:
    """A later version may have others; the store itself does not judge them, and another can be asked for."""
    store = Path(shutil.copytree(STORE, tmp_path / "store"))
    content = json.loads((store / "manifest.json").read_text())
    content["router"]["mode"] = "sometime_later"
    (store / "manifest.json").write_text(json.dumps(content))
    assert Store.open(store).verify() == []
    sentence = "router.mode must be one of paper, one_pass, fast, balanced, exact, not 'sometime_later'"
    with pytest.raises(ManifestError, match=sentence):
        Engine.load(str(store))
    assert Engine.load(str(store), mode="exact").tasks.keys() == {"digits", "street", "signs"}
