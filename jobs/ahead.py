"""Work that a thread does ahead of whoever takes it, as far as a bound on number and bytes lets it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")
# A file of another machine may take for ever.
CLOSING_SECONDS = 1.0


class Ahead(Generic[T]):
    """A generator that runs on a thread of its own, and is closed there.

    What it raises is raised where the item would be taken.
    """

    def __init__(
        self, items: Generator[T, None, None], most: int, most_bytes: int, nbytes: Callable[[T], int]
    ) -> None:
        """Begins. At most `most` items, or those of `most_bytes` in all, wait to be taken."""
        self._items, self._most, self._most_bytes, self._nbytes = items, most, most_bytes, nbytes
        self._waiting: deque[T] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        """Yields the items in their order."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._held -= self._nbytes(item)
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Lets go of what waits; the thread ends with its next item, which is not waited for for long."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        try:
            with closing(self._items):
                for item in self._items:
                    if not self._put(item):
                        break
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Waits for room, and tells whether there still is somebody who takes items."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(self._nbytes(item)))
            if self._closed:
                return False
            self._waiting.append(item)
            self._held += self._nbytes(item)
            self._changed.notify_all()
        return True

    def _has_room(self, nbytes: int) -> bool:
        # One item alone may be larger than all may be together.
        fits = len(self._waiting) < self._most and self._held + nbytes <= self._most_bytes
        return fits or not self._waiting
