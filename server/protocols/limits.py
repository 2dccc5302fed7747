"""How much one request may ask for, whatever its protocol."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.server.errors import BadRequestError, TooLargeError
from mass_serve.server.protocols.bodies import MOST_OPTIONS

DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Limits:
    """Holds what one request may ask for."""

    max_images: int  # or texts
    max_top_k: int
    max_text_characters: int = 0

    @property
    def most_values(self) -> int:
        """How many commas JSON may have: between options, around inputs, and within texts."""
        return MOST_OPTIONS + 2 * self.max_images + self.max_text_characters


def check_count(count: int, what: str, limits: Limits) -> None:
    """Raises BadRequestError for no image, or text, and TooLargeError for too many."""
    if not count:
        raise BadRequestError(f"The request holds no {what}; send at least one.")
    if count > limits.max_images:
        raise TooLargeError(
            f"The request holds {count} {what}s, the limit is {limits.max_images}; send fewer at a time."
        )


def checked_top_k(top_k: int, limit: int) -> int:
    """Returns `top_k` if it may be asked for. Raises BadRequestError."""
    if not 1 <= top_k <= limit:
        raise BadRequestError(f"top_k must be between 1 and {limit}.")
    return top_k
