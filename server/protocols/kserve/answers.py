"""What KServe's clients of v1 are answered, and OpenAI's where they ask for models at the same path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from mass_serve.server.protocols.kserve.predict_requests import PredictRequest
from mass_serve.server.protocols.results import ImageResult, TokenResult, results
from mass_serve.server.serving.request_context import Answers


class Predictions(BaseModel):
    """The answers, in the order of the instances; each is what /v1/classify says of an input."""

    predictions: list[ImageResult | TokenResult]


class OpenAIModel(BaseModel):
    """A model, as OpenAI's clients read it."""

    id: str
    object: Literal["model"] = "model"
    owned_by: Literal["mass-serve"] = "mass-serve"


class ModelNames(BaseModel):
    """The names of all models."""

    models: list[str] = Field(description="for clients of KServe")
    object: Literal["list"] = "list"
    data: list[OpenAIModel] = Field(description="the same for clients of OpenAI")


class ModelReadiness(BaseModel):
    """Tells whether a model answers."""

    name: str
    ready: bool


def predictions(asked: PredictRequest, answers: Answers) -> str:
    """Returns the answer to a request in JSON."""
    return Predictions(predictions=results(answers, asked.top_k, asked.aggregation)).model_dump_json()


def listed(names: Sequence[str]) -> ModelNames:
    """Returns the list of models of those names."""
    return ModelNames(models=list(names), data=[OpenAIModel(id=name) for name in names])
