"""How the blocks of a task may be kept, by name; `block_formats` reads and writes them."""

from __future__ import annotations

from typing import Literal

BlockDtype = Literal["bfloat16", "float16", "float32"]
BlockFormat = Literal["bfloat16", "float16", "float32", "int8", "int4"]
