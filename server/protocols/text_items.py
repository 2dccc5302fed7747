"""A text in JSON: a string, or an object of the two texts of a pair, as Hugging Face's clients write one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator

from mass_serve.inputs.texts import Text

FIRST, SECOND = "text", "text_pair"


def read_text(value: object) -> Text:
    """Returns the text that a value in JSON stands for. Raises ValueError."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() == {FIRST, SECOND}:
        first, second = value[FIRST], value[SECOND]
        if isinstance(first, str) and isinstance(second, str):
            return first, second
    raise ValueError(f'a text must be a string, or a pair {{"{FIRST}": "...", "{SECOND}": "..."}}.')


def texts_of_json(values: Iterable[Any]) -> list[Text]:
    """Returns the texts that a worker process has written as JSON, which has lists in place of tuples."""
    return [value if isinstance(value, str) else (value[0], value[1]) for value in values]


class TextPair(BaseModel):
    """Two texts that belong together, for a model that was trained on pairs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    text_pair: str


# Read without the model, which tells of a wrong text in several sentences.
TextItem = Annotated[Text, PlainValidator(read_text, json_schema_input_type=str | TextPair)]
