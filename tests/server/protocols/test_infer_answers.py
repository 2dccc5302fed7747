"""What an answer of the Open Inference Protocol looks like is what the model's metadata say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from mass_serve.engine import Classification
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.open_inference.answers import infer_answer
from mass_serve.server.protocols.open_inference.infer_requests import parse_infer_request
from mass_serve.server.protocols.open_inference.metadata import described_outputs
from mass_serve.server.protocols.open_inference.models import find_model
from mass_serve.server.serving.request_context import Answers
from tests.server.fakes import FakeEngine, task_entry

WIDTHS = {"few": 2, "many": 5}


def engine_with(*names: str) -> FakeEngine:
    tasks = {n: task_entry(n, "abcde"[: WIDTHS[n]]) for n in names}
    return FakeEngine(tasks=tasks)


def ask(engine: FakeEngine, output: dict[str, Any]) -> dict[str, Any]:
    """One image, which is of the task of few labels."""
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [""]}
    body = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    request = parse_infer_request(body, None, Limits(8, 10))
    residuals = dict.fromkeys(engine.tasks, 1.0) if len(engine.tasks) > 1 else {}
    image = Classification(
        "few", "r1", ("a", "b"), torch.tensor([0.0, 1.0]), ("few",), {}, residuals, 0.5, False, 2.0
    )
    answer = infer_answer(request, find_model(engine, "auto", None), Answers("fake-1", [image]))
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
