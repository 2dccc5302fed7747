"""Memory that a batch frees stays with the process, for the next batch to take again.

glibc gives the end of its heap back to the system whenever 128 KiB of it are free, and waits for more only
once larger tensors were freed than a small encoder has. A batch of 32 images of the demo then fetches 7,600
pages anew, which takes a quarter of its time. The limits set here are those that glibc itself comes to at
most. Who counts what a process holds when it has nothing to do calls `malloc_trim`, as the server does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SAID_BY = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"}
LARGEST_OF_HEAP = 32 << 20  # bytes of one tensor; what is larger is given back at once
MOST_KEPT = 2 * LARGEST_OF_HEAP  # bytes at the end of a heap


@cache
def keep_freed_memory() -> None:
    """Has the C library keep freed memory, of this process.

    It changes nothing where the library is not glibc, and where variables of glibc's own say what it keeps.
    """
    if sys.platform != "linux" or SAID_BY & os.environ.keys():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_OF_HEAP)
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
