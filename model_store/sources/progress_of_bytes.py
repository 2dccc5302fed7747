"""Progress of a download, in megabytes."""

from __future__ import annotations

from typing import Any, Self

from mass_serve.model_store.progress import Progress

_MEGABYTE = 1_000_000


class ByteProgress:
    """Counts the bytes of one file and reports whole megabytes, rounded up so that a small file counts."""

    def __init__(self, stage: str, total: int, progress: Progress, done: int = 0) -> None:
        self._stage, self._total, self._progress, self._done = stage, total, progress, done
        self.add(0)

    def add(self, count: int) -> None:
        """Counts bytes that have arrived; a negative number takes back what has to come again."""
        self._done += count
        self._progress(self._stage, -(-self._done // _MEGABYTE), -(-self._total // _MEGABYTE))


def bar_class(stage: str, progress: Progress) -> type[Any]:
    """Makes a class that huggingface_hub takes for one of tqdm's bars, and that reports to `progress`."""

    class Bar:
        def __init__(self, *_: object, total: int | None = None, initial: int = 0, **__: object) -> None:
            self._bytes = ByteProgress(stage, total or 0, progress, initial)

        def update(self, count: int = 1) -> None:
            self._bytes.add(count)

        def set_postfix_str(self, *_: object, **__: object) -> None:
            """Shows nothing: the rate of a transfer."""

        def close(self) -> None:
            """Has nothing to close."""

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

    return Bar
