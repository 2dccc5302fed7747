"""How the matrix libraries under PyTorch compute, where they have a choice that a row's bits depend on.

Both choose by the processor, and on those with AMX a float32 row of few, and a bfloat16 row of many, had
other bits than the same row in another batch. `kernels.rows` pads to shapes that are alike elsewhere; here
the libraries are told to keep to it:

    MKL_CBWR=AUTO,STRICT                   MKL's float32 products have the same bits for any rows and threads,
                                           at no cost but for those of few rows: 50 take a quarter longer
    ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16    oneDNN's bfloat16 products do without AMX, which is many times as
                                           quick and sums in an order that depends on the number of rows

They read these variables at the first product of a process, so this is imported before it. Who has set one
of them has chosen, and gives the promise up: ONEDNN_MAX_CPU_ISA=DEFAULT brings AMX back.
"""

from __future__ import annotations

import os

VARIABLES = {"MKL_CBWR": "AUTO,STRICT", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}

for name, value in VARIABLES.items():
    os.environ.setdefault(name, value)
