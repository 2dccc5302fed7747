"""How much one request may ask for, whatever its protocol."""

from __future__ import annotations

from dataclasses import dataclass

from mass_serve.server.errors import BadRequestError

DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Limits:
    """Holds what one request may ask for."""

    max_images: int
    max_top_k: int


def checked_top_k(top_k: int, limit: int) -> int:
    """Returns `top_k` if it may be asked for. Raises BadRequestError."""
    if not 1 <= top_k <= limit:
        raise BadRequestError(f"top_k must be between 1 and {limit}.")
    return top_k
