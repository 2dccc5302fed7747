"""How fast the device has been of late, and whether a request can be answered in time at that pace."""

from __future__ import annotations

# What a batch still counts for in the pace when one more has been answered.
PACE_MEMORY = 0.8
# Admission adds 20 % to the predicted wait: the next batches may be slower than the recent average.
ADMISSION_MARGIN = 1.2


class Pace:
    """Seconds per image over recent batches, `sum(w s) / sum(w n)` with w falling by PACE_MEMORY a batch."""

    def __init__(self) -> None:
        self._images = 0.0
        self._seconds = 0.0

    def observe(self, images: int, seconds: float) -> None:
        """Takes one more batch into account; those before it count for less and less."""
        self._images = PACE_MEMORY * self._images + images
        self._seconds = PACE_MEMORY * self._seconds + seconds

    @property
    def seconds_per_image(self) -> float:
        """The recent average; 0 before the first batch."""
        return self._seconds / self._images if self._images else 0.0

    def careful_seconds(self, images: int) -> float:
        """The seconds within which so many images should be answered, with a margin for slower batches."""
        return ADMISSION_MARGIN * images * self.seconds_per_image
