"""One number of every task, by its name: answers hold as many of them as there are tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor


class ByTask(Mapping[str, float]):
    """A mapping over values [T] that stay a tensor until somebody asks for them."""

    def __init__(self, places: Mapping[str, int], values: Tensor) -> None:
        """`places` holds the number of each task, in their order; answers of one engine share it."""
        self._places, self._values = places, values

    @property
    def tensor(self) -> Tensor:
        """The values [T]."""
        return self._values

    def copied(self) -> ByTask:
        """The same mapping over values of its own, where these are a part of a larger tensor."""
        return ByTask(self._places, self._values.clone())

    def __getitem__(self, name: str) -> float:
        return float(self._values[self._places[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return repr(dict(zip(self._places, self._values.tolist(), strict=True)))
