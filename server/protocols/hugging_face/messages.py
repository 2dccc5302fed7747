"""What Hugging Face's classification clients send and expect, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mass_serve.server.protocols.text_items import TextItem

ScoreFunction = Literal["softmax", "sigmoid", "none"]


class HuggingFaceParameters(BaseModel):
    """What Hugging Face's classification tasks let a caller choose."""

    model_config = ConfigDict(extra="forbid", strict=True)

    top_k: Annotated[int | None, Field(description="how many labels to return, 5 by default")] = None
    function_to_apply: Annotated[
        ScoreFunction | None,
        Field(
            description="what turns logits into scores: softmax, or sigmoid of a single label and in tasks of"
            " any number of labels, by default"
        ),
    ] = None

    candidate_labels: Annotated[
        list[str] | None,
        Field(description="of zero-shot classification: labels of one task, of which alone is told"),
    ] = None
    multi_label: Annotated[
        bool | None,
        Field(description="each candidate's score on its own, and not among the candidates"),
    ] = None
    hypothesis_template: Annotated[str | None, Field(description="null: no text is made of candidates")] = (
        None
    )


class TextParameters(HuggingFaceParameters):
    """What Hugging Face's tasks about texts let a caller choose.

    A task that classifies tokens takes the last three, and any other task the others.
    """

    aggregation_strategy: Annotated[
        Literal["none", "simple", "first", "average", "max"] | None,
        Field(description="how tokens become entities, simple by default"),
    ] = None
    ignore_labels: Annotated[
        list[str] | None, Field(description="labels whose entities are left out, O alone by default")
    ] = None
    stride: Annotated[int | None, Field(description="null: a text is not split, but cut")] = None


class HuggingFaceBody(BaseModel):
    """A Hugging Face image-classification request as JSON; what else its clients add is not read."""

    model_config = ConfigDict(strict=True)

    inputs: str = Field(description="the image file in standard base64, or as a data URI")
    parameters: HuggingFaceParameters | None = None


class TextBody(BaseModel):
    """A request about texts, of Hugging Face's clients or of those of text-embeddings-inference.

    What else they add is not read.
    """

    model_config = ConfigDict(strict=True)

    # Which of the two writes so is known only once the rest is read.
    inputs: Any
    parameters: TextParameters | None = None
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right", "Left", "left"] | None = None
    raw_scores: bool = False


class TextClassificationBody(BaseModel):
    """How Hugging Face's text-classification and token-classification clients ask."""

    inputs: TextItem | list[TextItem] = Field(description="a text or a pair, or a list of them")
    parameters: TextParameters | None = None


class PredictBody(BaseModel):
    """How clients of text-embeddings-inference ask."""

    inputs: str | list[str] | list[list[str]] = Field(
        description="a text, a pair of two, or a batch of lists of one or two"
    )
    truncate: bool | None = Field(None, description="false refuses a text that is too long with 413")
    truncation_direction: Literal["Right", "Left"] = Field("Right", description="the end that is cut off")
    raw_scores: bool = Field(False, description="logits in place of probabilities")


def _is_none(value: object) -> bool:
    return value is None


class HuggingFaceLabel(BaseModel):
    """A label, its score, and the task that it belongs to."""

    label: str
    score: float
    task: str
    task_revision: str
    given: bool | None = Field(
        default=None,
        exclude_if=_is_none,
        description="of a task of any number of labels: whether the label reaches its threshold",
    )
    unrouted: bool = Field(description="the input is so little like those of any task that none is believed")
    cut: int | None = Field(
        default=None, exclude_if=_is_none, description="of a text: how many of its tokens were not read"
    )


class HuggingFaceEntity(BaseModel):
    """A token, or a run of tokens, of a text that a task found something in."""

    entity: str | None = Field(
        default=None, exclude_if=_is_none, description="the label, where nothing was aggregated"
    )
    entity_group: str | None = Field(
        default=None, exclude_if=_is_none, description="the label, without B- and I-"
    )
    index: int | None = Field(
        default=None, exclude_if=_is_none, description="the number of the token, where nothing was aggregated"
    )
    score: float
    word: str = Field(description="what stands in the text from start to end")
    start: int = Field(description="the first character, counted in Unicode code points from 0")
    end: int = Field(description="the character behind the last")
    task: str
    task_revision: str
    cut: int = Field(description="how many of the text's tokens were not read")
