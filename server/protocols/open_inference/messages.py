"""What a client of the Open Inference Protocol is answered, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class OutputTensorParameters(BaseModel):
    """What is said of an output beside its shape."""

    binary_data_size: int = Field(description="its bytes, which follow the JSON in the order of the outputs")


class InferOutput(BaseModel):
    """An output: its data in JSON, or their size in the bytes behind it."""

    name: str
    datatype: Literal["BYTES", "FP32", "INT32", "BOOL"]
    shape: list[int]
    parameters: OutputTensorParameters | None = None
    data: list[Any] | None = Field(None, description="in one flat list")


class InferResponse(BaseModel):
    """The answer to an inference request, or the JSON part of one with binary outputs."""

    model_config = {"protected_namespaces": ()}

    model_name: str
    model_version: str
    id: str | None = Field(None, description="the request's, if it had one")
    outputs: list[InferOutput]
