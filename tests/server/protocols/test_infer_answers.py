"""What an answer of the Open Inference Protocol looks like is what the model's metadata say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from mass_serve.engine import Alternative, Classification
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.models import find_model
from mass_serve.server.protocols.open_inference.answers import Found, infer_answer
from mass_serve.server.protocols.open_inference.infer_requests import parse_infer_request
from mass_serve.server.protocols.open_inference.metadata import described_outputs
from mass_serve.server.serving.request_context import Answers
from tests.server.fakes import FakeEngine, task_entry

WIDTHS = {"few": 2, "many": 5}


def engine_with(*names: str) -> FakeEngine:
    tasks = {n: task_entry(n, "abcde"[: WIDTHS[n]]) for n in names}
    return FakeEngine(tasks=tasks)


def ask(engine: FakeEngine, output: dict[str, Any], *alternatives: Alternative) -> dict[str, Any]:
    """One image, which is of the task of few labels."""
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [""]}
    body = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    request = parse_infer_request(body, None, Limits(8, 10))
    residuals = dict.fromkeys(engine.tasks, 1.0) if len(engine.tasks) > 1 else {}
    image = Classification(
        "few", "r1", ("a", "b"), torch.tensor([0.0, 1.0]), ("few",), {}, residuals, 0.5, False, 2.0
    )
    image = replace(image, alternatives=alternatives)
    answer = infer_answer(request, find_model(engine, "auto", None), Found(Answers("fake-1", [image]), None))
    (found,) = json.loads(answer.body)["outputs"]
    return dict(found)


@pytest.mark.parametrize("name", ["probabilities", "residuals"])
def test_the_shape_is_the_declared_one(name: str) -> None:
    engine = engine_with("few", "many")
    declared = {
        output["name"]: output["shape"] for output in described_outputs(find_model(engine, "auto", None))
    }
    answered = ask(engine, {"name": name})
    assert answered["shape"][1:] == declared[name][1:]
    assert len(answered["data"]) == declared[name][1]


@pytest.mark.parametrize(
    ("name", "datatype", "value", "without"),
    [
        ("alternative_task", "BYTES", "many", ""),
        ("alternative_label", "BYTES", "b", ""),
        ("alternative_coefficient", "FP32", 0.25, 0.0),
    ],
)
def test_the_first_alternative_has_outputs_of_its_own(
    name: str, datatype: str, value: object, without: object
) -> None:
    engine = engine_with("few", "many")
    declared = {output["name"]: output for output in described_outputs(find_model(engine, "auto", None))}
    assert (declared[name]["datatype"], declared[name]["shape"]) == (datatype, [-1])
    assert name not in {output["name"] for output in described_outputs(find_model(engine, "few", None))}
    logits = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    near = [Alternative("many", "r1", tuple("abcde"), logits, share) for share in (0.25, 0.125)]
    answered = ask(engine, {"name": name}, *near)
    assert (answered["shape"], answered["datatype"], answered["data"]) == ([1], datatype, [value])
    assert ask(engine, {"name": name})["data"] == [without]


def test_classes_are_as_many_whatever_task_wins() -> None:
    answered = ask(engine_with("few", "many"), {"name": "label", "parameters": {"classification": 4}})
    assert answered["shape"] == [1, 4]
    assert answered["data"][2:] == ["", ""]


def test_one_task_has_no_residuals() -> None:
    engine = engine_with("few")
    assert "residuals" not in {
        output["name"] for output in described_outputs(find_model(engine, "auto", None))
    }
    with pytest.raises(BadRequestError, match="where one task is in service"):
        ask(engine, {"name": "residuals"})
