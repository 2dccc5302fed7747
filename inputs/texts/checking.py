"""Whether texts can be read at all, before anything is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mass_serve.inputs.errors import EmptyInputError, InputTooLargeError, InvalidTextError
from mass_serve.inputs.texts.text import Text, num_characters


@dataclass(frozen=True)
class TextLimits:
    """Holds what texts may be that come together."""

    max_characters: int  # of all of them: tokenizers take time in proportion, whatever a model uses of it


def check_texts(texts: Sequence[Text], limits: TextLimits | None = None) -> None:
    """Raises the InputError of the first text that is none, naming it where there are several."""
    characters = num_characters(texts)
    if limits is not None and characters > limits.max_characters:
        raise InputTooLargeError(
            f"The texts have {characters} characters, the limit is {limits.max_characters}; send shorter"
            " ones, or fewer at a time."
        )
    for index, text in enumerate(texts):
        _check_parts(text, "" if len(texts) == 1 else f"texts[{index}]")


def _check_parts(text: Text, name: str) -> None:
    if isinstance(text, str):
        _check(text, name or "The text")
        return
    first, second = text
    _check(first, f"{name}.text" if name else "The first text of the pair")
    _check(second, f"{name}.text_pair" if name else "The second text of the pair")


def _check(text: str, name: str) -> None:
    if not text:
        raise EmptyInputError(f"{name} is empty; send at least one word.")
    if "\0" in text:
        raise InvalidTextError(f"{name} has a NUL at character {text.index(chr(0))}; remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"{name} has half of a surrogate pair at character {error.start}; send whole characters."
        ) from error
