"""What the server and its models say of themselves, whatever the transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mass_serve import __version__
from mass_serve.server.protocols.models import Model
from mass_serve.server.protocols.open_inference.infer_inputs import IMAGE, PIXEL_VALUES, TEXT, TEXT_PAIR
from mass_serve.server.protocols.open_inference.infer_requests import ALTERNATIVE_OUTPUTS, CUT, EMBEDDING
from mass_serve.server.serving.service import Service

PLATFORM = "mass_serve"
DESCRIBED_EMBEDDING = {"name": EMBEDDING, "datatype": "FP32", "shape": [-1, -1]}
# Only where there is a key that opens it.
REPOSITORY_EXTENSIONS = ["model_repository", "model_repository(unload_dependents)"]


def described_server(service: Service, extensions: Sequence[str]) -> dict[str, Any]:
    """Returns the server's name, version and extensions: those of the transport, and the repository's."""
    opened = REPOSITORY_EXTENSIONS if service.access.repository_is_open else []
    return {"name": "mass-serve", "version": __version__, "extensions": [*extensions, *opened]}


def described_model(model: Model) -> dict[str, Any]:
    """Returns a model's inputs, of which a request sends one, or both texts of pairs, and its outputs."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": described_inputs(model),
        "outputs": described_outputs(model),
    }


def described_inputs(model: Model) -> list[dict[str, Any]]:
    """Returns name, type and shape of each input."""
    if model.crop is None:
        names = (TEXT, TEXT_PAIR) if model.takes_pairs else (TEXT,)
        return [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in names]
    return [
        {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
        {"name": PIXEL_VALUES, "datatype": "FP32", "shape": [-1, 3, model.crop, model.crop]},
    ]


def described_outputs(model: Model) -> list[dict[str, Any]]:
    """Returns name, type and shape of each output."""
    if model.each_token:
        return [
            {"name": "entities", "datatype": "BYTES", "shape": [-1]},
            {"name": "task", "datatype": "BYTES", "shape": [-1]},
            {"name": CUT, "datatype": "INT32", "shape": [-1]},
            DESCRIBED_EMBEDDING,
        ]
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "labels", "datatype": "BYTES", "shape": [-1]},
        {"name": "task", "datatype": "BYTES", "shape": [-1]},
        {"name": "score", "datatype": "FP32", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, model.widest_head]},
        {"name": "unrouted", "datatype": "BOOL", "shape": [-1]},
        DESCRIBED_EMBEDDING,
    ]
    if model.crop is None:
        outputs.append({"name": CUT, "datatype": "INT32", "shape": [-1]})
    if model.task is None:
        types = ("BYTES", "BYTES", "FP32")
        outputs += [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in zip(ALTERNATIVE_OUTPUTS, types, strict=True)
        ]
    if model.gives_residuals:
        outputs.append({"name": "residuals", "datatype": "FP32", "shape": [-1, model.num_tasks]})
    return outputs
