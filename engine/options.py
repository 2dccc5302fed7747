"""Every option of an engine, typed once: flags, environment, file and `mass_build_info` follow from it.

    EngineOptions(device="cpu", mode="fast")

`server.settings.Settings` inherits the fields, `cli.setting_flags` makes flags of them, and the words among
them are labels of `mass_build_info`: a new option is a new field here and nothing else.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from mass_serve.engine.execution import Execution
from mass_serve.router import MODE_NAMES, ModeName

GIB = 1 << 30


class EngineOptions(BaseModel):
    """How an engine serves a store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto (cuda where there is one), cpu or cuda[:i]",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="arithmetic of the encoder: float32 or bfloat16; heads and router are float32",
    )
    execution: Execution = Field(
        default=Execution.LOW_RANK,
        description="how expert sets are applied: low_rank, materialised or adaptive",
    )
    mode: ModeName | None = Field(
        default=None, description=f"search for the task: {', '.join(MODE_NAMES)}; the store's by default"
    )
    set_cache_bytes: int = Field(
        default=GIB, ge=0, description="memory for expert sets beside the shared blocks, in bytes"
    )

    @property
    def labels(self) -> dict[str, str]:
        """The options that are words and not numbers, as labels of a metric; what was left open is empty."""
        options = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: str(value or "")
            for name, value in options.items()
            if value is None or isinstance(value, str)
        }

    @property
    def torch_device(self) -> torch.device:
        """The device, chosen where that was left open. Raises ValueError for one that is absent."""
        there = torch.cuda.is_available()
        if self.device == "auto":
            return torch.device("cuda" if there else "cpu")
        if self.device.startswith("cuda") and not there:
            raise ValueError(
                "device: cuda was asked for, and torch sees no CUDA device here; use cpu or auto"
            )
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the encoder."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32
