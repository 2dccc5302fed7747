"""The three forms of a classification request, told apart by the body itself.

Clients send images with no content type, or with whatever their HTTP library puts there (curl says
`application/x-www-form-urlencoded`), so the header only decides which mistake a malformed body made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from mass_serve.inputs.texts import Text
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.bodies import (
    is_form,
    is_json,
    parse_json,
)
from mass_serve.server.protocols.framed import framed_files, unframed_files
from mass_serve.server.protocols.image_items import ImageItem, files_of_items
from mass_serve.server.protocols.limits import DEFAULT_TOP_K, Limits, check_count, checked_top_k
from mass_serve.server.protocols.native.multipart_forms import Part, parse_multipart
from mass_serve.server.protocols.text_items import TextItem, texts_of_json
from mass_serve.server.protocols.together import (
    PRIORS,
    PRIORS_AS_TEXT,
    SAME_TASK,
    STREAM,
    Together,
    priors_of_text,
)
from mass_serve.server.serving.request_context import EncodedImages, Texts

if TYPE_CHECKING:
    from mass_serve.engine import Aggregation, AnswerKind, ModeName

# Of a form, beside its images.
MOST_FIELDS = 1000
# The names that a form's images may have: documented, and as `curl -F file=@photo.jpg` is typed.
IMAGE_FIELDS = ("images", "image", "file", "files")
ANSWER = "best, the default, for one answer to each input, or each for one of every task named, or of all"
MODE = (
    "how much the search for the task is worth this time: one of `modes` in the answer of /v1/tasks, of which"
    " the first is the default; where one task is named nothing is searched for, and it says nothing"
)
NAMES = "`@retail` is all of the group `retail`, and where that is one task nothing is searched for"
AGGREGATION = (
    "how entities are made of the tokens that a task classifies: simple, the default, none, first, average or"
    " max, as in transformers"
)
_TRUTH = TypeAdapter(bool)
FileOfForm = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
# The function that reads large JSON in a worker process.
FILES_OF_JSON = "mass_serve.server.protocols.native.classify_requests:files_of_json"


class ClassifyBody(BaseModel):
    """A classification request as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[ImageItem] = Field([], fail_fast=True)
    texts: list[TextItem] | None = Field(
        None, fail_fast=True, description="in place of images, where the store reads texts"
    )
    tasks: list[str] | None = Field(None, fail_fast=True, description=f"choose among these tasks; {NAMES}")
    top_k: int | None = Field(None, description="how many labels to return per answer, 5 by default")
    # Written out: `engine.AnswerKind` would bring torch to the processes that read large bodies.
    answer: Literal["best", "each"] | None = Field(None, description=ANSWER)
    same_task: bool | None = Field(None, description=SAME_TASK)
    stream: str | None = Field(None, description=STREAM)
    priors: dict[str, float] | None = Field(None, fail_fast=True, description=PRIORS)
    # Any text: `engine.ModeName` would bring torch, too.
    mode: str | None = Field(None, description=MODE)
    aggregation: Literal["none", "simple", "first", "average", "max"] | None = Field(
        None, description=AGGREGATION
    )


class ClassifyForm(BaseModel):
    """A classification request as a multipart form."""

    model_config = ConfigDict(extra="forbid")

    images: list[FileOfForm] = Field(min_length=1)
    tasks: str | None = Field(None, description=f"separated by commas; {NAMES}")
    top_k: int | None = Field(None, ge=1)
    answer: Literal["best", "each"] | None = Field(None, description=ANSWER)
    same_task: bool | None = Field(None, description=SAME_TASK)
    stream: str | None = Field(None, description=STREAM)
    priors: str | None = Field(None, description=PRIORS_AS_TEXT)
    mode: str | None = Field(None, description=MODE)


@dataclass(frozen=True)
class Options:
    """Holds what a caller may say beside images, as query parameters or in the body, which wins."""

    tasks: Sequence[str] | None = None
    top_k: int | None = None
    answer: AnswerKind | None = None
    same_task: bool | None = None
    aggregation: Aggregation | None = None
    mode: ModeName | None = None
    stream: str | None = None
    priors: Mapping[str, float] | None = None
    texts: Sequence[Text] | None = None  # in a body alone

    def over(self, others: Options) -> Options:
        """Returns these options, and the others where these say nothing."""
        return replace(others, **self.said)

    @property
    def said(self) -> dict[str, Any]:
        """The options that say something, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class ClassifyRequest:
    """A well-formed request: encoded images, or texts, and what to answer about them."""

    inputs: EncodedImages | Texts
    tasks: Sequence[str] | None
    top_k: int
    answer: AnswerKind
    aggregation: Aggregation
    mode: ModeName | None
    together: Together


def parse_request(body: bytes, content_type: str, query: Options, limits: Limits) -> ClassifyRequest:
    """Reads any of the three forms. Raises BadRequestError or TooLargeError."""
    if not body:
        raise BadRequestError(
            "The request has no body; send an image, a multipart form with 'images', or JSON with 'images' or"
            " 'texts'."
        )
    return _checked(*_read_form(body, content_type.strip().lower(), limits), query, limits)


def files_of_json(body: memoryview, most_values: bytes) -> bytes:
    """Returns the files of a JSON body and its options, for `request_of_files`. Raises as `parse_request`."""
    files, options = _read_json(bytes(body), int(most_values))
    return framed_files(options.said, files)


def request_of_files(frame: bytearray, query: Options, limits: Limits) -> ClassifyRequest:
    """Reads what `files_of_json` made of a body. Raises as `parse_request` does."""
    options, files = unframed_files(frame)
    if "texts" in options:
        options["texts"] = texts_of_json(options["texts"])
    return _checked(files, Options(**options), query, limits)


def _checked(files: Sequence[bytes], options: Options, query: Options, limits: Limits) -> ClassifyRequest:
    asked = options.over(query)
    return ClassifyRequest(
        _checked_inputs(files, asked.texts, limits),
        asked.tasks,
        checked_top_k(DEFAULT_TOP_K if asked.top_k is None else asked.top_k, limits.max_top_k),
        "best" if asked.answer is None else asked.answer,
        "simple" if asked.aggregation is None else asked.aggregation,
        asked.mode,
        Together(bool(asked.same_task), asked.stream, asked.priors),
    )


def _read_form(body: bytes, content_type: str, limits: Limits) -> tuple[list[bytes], Options]:
    """Returns the images of a body and the options in it, whichever form it has."""
    if is_form(body, content_type):
        return _read_multipart(parse_multipart(body, limits.max_images + MOST_FIELDS))
    if is_json(body, content_type):
        return _read_json(body, limits.most_values)
    return [body], Options()


def _read_json(body: bytes, most_values: int) -> tuple[list[bytes], Options]:
    parsed = parse_json(ClassifyBody, body, most_values)
    asked = parsed.model_dump(exclude={"images"})
    return files_of_items(parsed.images), Options(**asked)


def _read_multipart(parts: Sequence[Part]) -> tuple[list[bytes], Options]:
    files: list[bytes] = []
    tasks: list[str] | None = None
    options: dict[str, Any] = {}
    for part in parts:
        if part.name in IMAGE_FIELDS:
            files.append(part.data)
        elif part.name == "tasks":
            tasks = tasks or []
            tasks.extend(split_names([_text(part)]))
        elif part.name in FIELDS:
            options[part.name] = FIELDS[part.name](_text(part))
        elif part.name == "texts":
            raise BadRequestError(
                'A multipart form has images alone; send texts as JSON, {"texts": ["..."]}.'
            )
        else:
            raise BadRequestError(
                f"The multipart field {part.name[:80]!a} is unknown; the fields are images, tasks,"
                f" {', '.join(FIELDS)}."
            )
    return files, Options(tasks, **options)


def _text(part: Part) -> str:
    return part.data[:4096].decode("utf-8", "replace").strip()


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise BadRequestError(f"top_k must be a whole number, not {text[:80]!a}.") from error


def _truth(text: str) -> bool:
    try:
        return _TRUTH.validate_python(text)  # as FastAPI reads the query parameter
    except ValidationError as error:
        raise BadRequestError(f"same_task must be true or false, not {text[:80]!a}.") from error


# The fields of a form that stand there once, by how they are read; of several the last counts.
FIELDS: dict[str, Callable[[str], Any]] = {
    "top_k": _integer,
    "answer": str,
    "same_task": _truth,
    "stream": str,
    "priors": priors_of_text,
    "mode": str,
}


def split_names(values: Sequence[str]) -> list[str]:
    """Splits at commas: `a,b` and `a` then `b` mean the same."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _checked_inputs(
    files: Sequence[bytes], texts: Sequence[Text] | None, limits: Limits
) -> EncodedImages | Texts:
    inputs = EncodedImages(files) if texts is None else Texts(texts)
    what = "image" if texts is None else "text"
    if files and texts is not None:
        raise BadRequestError("The request holds images and texts; send one of them, as the store reads.")
    if not files and texts is None:
        raise BadRequestError(
            "The request holds no image and no text; send 'images' or 'texts', as the store reads."
        )
    check_count(len(inputs), what, limits)
    return inputs
