"""From classifications and embeddings to the tensors of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mass_serve.engine import Aggregation, Alternative, Classification, Entity, TokenClassification
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.models import Model
from mass_serve.server.protocols.open_inference.infer_requests import (
    ALTERNATIVE_OUTPUTS,
    CUT,
    EMBEDDING,
    InferRequest,
    WantedOutput,
)
from mass_serve.server.protocols.open_inference.tensors import joined_strings
from mass_serve.server.protocols.vectors import unit_length
from mass_serve.server.serving.request_context import Answers, Embeddings

# The protocol's names for the types of numbers, and how they are written.
NUMBERS: Mapping[str, DTypeLike] = {"FP32": "<f4", "INT32": "<i4", "BOOL": "?"}
# Of an entity, as the server's own protocol tells them.
ENTITY_FIELDS = ("label", "score", "start", "end", "text")
# What a model answers with that is asked for no output by name.
DEFAULT_OUTPUTS, DEFAULT_OUTPUTS_OF_TOKENS = ("label", "task", "score"), ("entities", "task")


@dataclass(frozen=True)
class Found:
    """What was found out for a request, of which it asks for at least one."""

    answers: Answers | None
    embeddings: Embeddings | None

    @property
    def cut(self) -> Sequence[int]:
        """How many tokens of each text were not read; empty of images."""
        found = self.answers or self.embeddings
        return () if found is None else found.cut


@dataclass(frozen=True)
class InferAnswer:
    """The body of an answer, and the length of its JSON part where bytes follow it."""

    body: bytes
    json_length: int | None


@dataclass(frozen=True)
class Values:
    """One output: strings, or numbers (or truths) whose first dimension is the image, or text."""

    strings: list[bytes] | None
    numbers: NDArray[np.float32] | NDArray[np.int32] | NDArray[np.bool_] | None
    per_image: tuple[int, ...]  # the shape of one image's part; () for one value

    @property
    def datatype(self) -> str:
        """The protocol's name for the type of the values."""
        if self.numbers is None:
            return "BYTES"
        return next(name for name, dtype in NUMBERS.items() if self.numbers.dtype == np.dtype(dtype))

    def as_bytes(self) -> bytes:
        """Returns the values in the protocol's binary form."""
        if self.strings is not None:
            return joined_strings(self.strings)
        assert self.numbers is not None
        return self.numbers.astype(NUMBERS[self.datatype]).tobytes()

    def as_json(self) -> list[Any]:
        """Returns the values for JSON, in one flat list."""
        if self.strings is not None:
            return [string.decode() for string in self.strings]
        assert self.numbers is not None
        flat: list[Any] = self.numbers.ravel().tolist()
        return flat


@dataclass(frozen=True)
class OutputTensor:
    """One output of an answer, as the request wanted it."""

    name: str
    values: Values
    shape: list[int]
    binary: bool


def infer_answer(request: InferRequest, model: Model, found: Found) -> InferAnswer:
    """Writes the answer to a request. Raises BadRequestError for an output that this model has not."""
    described, binary = [], []
    for output in output_tensors(request, model, found):
        head: dict[str, Any] = {
            "name": output.name,
            "datatype": output.values.datatype,
            "shape": output.shape,
        }
        if output.binary:
            data = output.values.as_bytes()
            binary.append(data)
            head["parameters"] = {"binary_data_size": len(data)}
        else:
            head["data"] = output.values.as_json()
        described.append(head)
    answer = {"model_name": model.name, "model_version": model.version, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    return InferAnswer(b"".join([text, *binary]), len(text) if binary else None)


def output_tensors(request: InferRequest, model: Model, found: Found) -> list[OutputTensor]:
    """Returns what a request asked for. Raises BadRequestError for an output that this model has not."""
    tensors = []
    for wanted in request.outputs or _default_outputs(request, model):
        values = _values(wanted, request, model, found)
        # [N, 1] becomes [N, C], not [N, 1, C]
        batch = request.batch_shape[:1] if values.per_image else request.batch_shape
        tensors.append(OutputTensor(wanted.name, values, [*batch, *values.per_image], wanted.binary))
    return tensors


def _default_outputs(request: InferRequest, model: Model) -> list[WantedOutput]:
    names = DEFAULT_OUTPUTS_OF_TOKENS if model.each_token else DEFAULT_OUTPUTS
    return [WantedOutput(name, request.binary, None) for name in names]


def _values(wanted: WantedOutput, request: InferRequest, model: Model, found: Found) -> Values:
    if wanted.name == EMBEDDING:
        assert found.embeddings is not None
        return _embeddings(found.embeddings)
    if wanted.name == CUT:
        if model.crop is not None:
            raise BadRequestError("Nothing is cut where the store reads images; ask without 'cut'.")
        return Values(None, np.array(found.cut, np.int32), ())
    assert found.answers is not None
    return _of_classifications(wanted, request, model, found.answers.classifications)


def _of_classifications(
    wanted: WantedOutput, request: InferRequest, model: Model, images: Sequence[Classification]
) -> Values:
    if wanted.name == "entities":
        return _entities(images, model, request.aggregation or "simple")
    if model.each_token and wanted.name != "task":
        raise BadRequestError(
            f"The task {model.name!r} classifies tokens; its outputs are entities, task, cut and embedding."
        )
    if wanted.classes is not None:
        return _classified(images, min(wanted.classes, model.widest_head))
    if wanted.name in ALTERNATIVE_OUTPUTS:
        return _alternatives(wanted.name, images)
    if wanted.name == "label":
        return Values([_label(image) for image in images], None, ())
    if wanted.name == "labels":
        return Values([_labels(image) for image in images], None, ())
    if wanted.name == "task":
        return Values([image.task.encode() for image in images], None, ())
    if wanted.name == "score":
        scores = [float(image.probabilities.max()) for image in images]
        return Values(None, np.array(scores, np.float32), ())
    if wanted.name == "unrouted":
        return Values(None, np.array([image.unrouted for image in images], np.bool_), ())
    if wanted.name == "residuals":
        if model.task is not None:
            raise BadRequestError("There are no residuals where the task is named; ask the model 'auto'.")
        if not model.gives_residuals:
            raise BadRequestError(
                "There are no residuals where one task is in service, nor in modes that do without them; ask "
                "without."
            )
        rows = [list(image.residuals.values()) for image in images]
        return Values(None, np.array(rows, np.float32), (len(rows[0]),))
    # Tasks have different numbers of labels: shorter rows are filled up with zeros.
    probabilities = np.zeros((len(images), model.widest_head), np.float32)
    for row, image in enumerate(images):
        probabilities[row, : len(image.labels)] = image.probabilities.numpy()
    return Values(None, probabilities, (model.widest_head,))


def _embeddings(found: Embeddings) -> Values:
    """Returns the embeddings, of unit length."""
    vectors = unit_length(found.vectors).numpy()
    return Values(None, vectors, vectors.shape[1:])


def _alternatives(name: str, images: Sequence[Classification]) -> Values:
    """Returns an output of each answer's first alternative: "" or 0 where there is none."""
    firsts = [image.alternatives[0] if image.alternatives else None for image in images]
    if name == "alternative_coefficient":
        coefficients = [one.coefficient if one else 0.0 for one in firsts]
        return Values(None, np.array(coefficients, np.float32), ())
    if name == "alternative_task":
        return Values([one.task.encode() if one else b"" for one in firsts], None, ())
    return Values([_label(one) if one else b"" for one in firsts], None, ())


def _label(answer: Classification | Alternative) -> bytes:
    return answer.labels[int(answer.logits.argmax())].encode()


def _labels(answer: Classification) -> bytes:
    """Returns the labels of an input as JSON: of one they are one, of another none, or many."""
    return json.dumps(answer.given, ensure_ascii=False).encode()


def _entities(texts: Sequence[Classification], model: Model, aggregation: Aggregation) -> Values:
    """Returns the entities of each text as JSON: a row of a tensor has no place for a number that varies."""
    if not model.each_token:
        raise BadRequestError(
            f"There are no entities of {model.name!r}, which classifies no tokens; ask without 'entities'."
        )
    of_texts = [one.entities(aggregation) for one in texts if isinstance(one, TokenClassification)]
    return Values([json.dumps(_told(found), ensure_ascii=False).encode() for found in of_texts], None, ())


def _told(found: Sequence[Entity]) -> list[dict[str, Any]]:
    return [{name: getattr(one, name) for name in ENTITY_FIELDS} for one in found]


def _classified(images: Sequence[Classification], width: int) -> Values:
    """Returns "value:index:label" of the likeliest first, as Triton does; rows are filled up with ""."""
    strings = []
    for image in images:
        probabilities = image.probabilities
        order = image.logits.argsort(descending=True, stable=True)[:width].tolist()
        row = [f"{float(probabilities[i]):f}:{i}:{image.labels[i]}".encode() for i in order]
        strings += row + [b""] * (width - len(row))
    return Values(strings, None, (width,))
