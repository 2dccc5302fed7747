"""Texts as two kinds of clients send them: Hugging Face's, and those of text-embeddings-inference.

Both write `inputs`, and mean different things by a list: several texts, or the one or two of a pair. The body
says whose it is, by `parameters` or by one of `truncate`, `truncation_direction` and `raw_scores`; one that
has neither is what the path is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mass_serve.inputs.texts import Text, Truncation
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import is_json, parse_json
from mass_serve.server.protocols.framed import framed_files, unframed_files
from mass_serve.server.protocols.hugging_face.messages import ScoreFunction, TextBody, TextParameters
from mass_serve.server.protocols.limits import DEFAULT_TOP_K, Limits, check_count, checked_top_k
from mass_serve.server.protocols.text_items import read_text

if TYPE_CHECKING:
    # Large JSON is read where there is no torch.
    from mass_serve.engine import Aggregation

# The function that reads large JSON in a worker process.
FRAME_OF_TEXTS = "mass_serve.server.protocols.hugging_face.text_requests:frame_of_texts"
OPTIONS_OF_PREDICT = {"truncate", "truncation_direction", "raw_scores"}
OF_LABELS = ("top_k", "function_to_apply", "candidate_labels")
OF_TOKENS = ("aggregation_strategy", "ignore_labels")
NEITHER = (
    'inputs: must be a text, a pair ["...", "..."], or a batch of such lists, [["..."], ["...", "..."]].'
)


@dataclass(frozen=True)
class TextRequest:
    """A well-formed request about texts."""

    texts: list[Text]
    is_list: bool  # they came in a list, were it of one
    is_nested: bool  # the answer: a list for each text, or the labels of the only one
    to_predict: bool  # a client of text-embeddings-inference asks
    parameters: TextParameters
    top_k: int
    function: ScoreFunction | None
    truncation: Truncation | None  # None: as the store has it

    @property
    def aggregation(self) -> Aggregation:
        """How tokens become entities."""
        return self.parameters.aggregation_strategy or "simple"

    def check_asks(self, of_tokens: bool) -> None:
        """Raises BadRequestError for parameters that say nothing to such a task, or that are not served."""
        if self.parameters.stride is not None:
            raise BadRequestError("stride: texts are not split here; leave it out, and what is cut is said.")
        other = OF_LABELS if of_tokens else OF_TOKENS
        if given := [name for name in other if getattr(self.parameters, name) is not None]:
            what = "classifies tokens" if of_tokens else "classifies texts as a whole"
            raise BadRequestError(f"The task {what}, and {given[0]} says nothing to it; leave it out.")


def read_texts(body: bytes, content_type: str, to_predict: bool, limits: Limits) -> TextRequest:
    """Reads a request, sent to text-embeddings-inference's path or to another.

    Raises BadRequestError and TooLargeError.
    """
    if not is_json(body, content_type):
        raise BadRequestError(
            "This store reads texts, not images; send JSON with 'inputs', a text or several, or with 'texts'"
            " to /v1/classify."
        )
    return _checked(parse_json(TextBody, body, limits.most_values), to_predict, limits)


def frame_of_texts(body: memoryview, most_values: bytes) -> bytes:
    """Returns a JSON body as it was parsed, for `texts_of_frame`. Raises as `read_texts`."""
    parsed = parse_json(TextBody, bytes(body), int(most_values))
    return framed_files(parsed.model_dump(exclude_unset=True), [])


def texts_of_frame(frame: bytearray, to_predict: bool, limits: Limits) -> TextRequest:
    """Reads what `frame_of_texts` made of a body. Raises as `read_texts`."""
    return _checked(TextBody(**unframed_files(frame)[0]), to_predict, limits)


def _checked(body: TextBody, to_predict: bool, limits: Limits) -> TextRequest:
    asks_predict = bool(body.model_fields_set & OPTIONS_OF_PREDICT) or to_predict
    is_predict = body.parameters is None and asks_predict
    parameters = body.parameters or TextParameters()
    if is_predict:
        texts, is_nested = _read_predict_inputs(body.inputs)
        top_k, function = limits.max_top_k, None
    else:
        texts = _read_inputs(body.inputs)
        # The client of zero-shot classification expects the labels of its one text as they are.
        is_nested = parameters.candidate_labels is None or isinstance(body.inputs, list)
        top_k = DEFAULT_TOP_K if parameters.top_k is None else parameters.top_k
        function = parameters.function_to_apply
    check_count(len(texts), "text", limits)
    return TextRequest(
        texts,
        isinstance(body.inputs, list),
        is_nested,
        is_predict,
        parameters,
        checked_top_k(top_k, limits.max_top_k),
        "none" if body.raw_scores else function,
        _truncation(body, is_predict),
    )


def _truncation(body: TextBody, is_predict: bool) -> Truncation | None:
    if body.truncate is False:
        return "none"
    if body.truncation_direction is None:
        # text-embeddings-inference cuts the right end of every model's texts.
        return "right" if is_predict else None
    return "left" if body.truncation_direction.lower() == "left" else "right"


def _read_inputs(value: object) -> list[Text]:
    """Returns the texts of Hugging Face's clients: one, or a list of them."""
    if not isinstance(value, list):
        return [_read_text(value, "inputs")]
    return [_read_text(item, f"inputs[{index}]") for index, item in enumerate(value)]


def _read_text(value: object, where: str) -> Text:
    try:
        return read_text(value)
    except ValueError as error:
        raise BadRequestError(f"{where}: {error}") from error


def _read_predict_inputs(value: object) -> tuple[list[Text], bool]:
    """Returns the texts of text-embeddings-inference's clients, and whether they are a batch."""
    if isinstance(value, list) and all(isinstance(item, list) for item in value):
        return [_one_or_pair(item) for item in value], True
    return [_one_or_pair([value] if isinstance(value, str) else value)], False


def _one_or_pair(value: object) -> Text:
    """Returns a list of one text or of two as what it stands for."""
    match value:
        case [str(text)]:
            return text
        case [str(first), str(second)]:
            return first, second
        case _:
            raise BadRequestError(NEITHER)
