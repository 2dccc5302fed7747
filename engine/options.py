"""Every option of an engine, typed once: flags, environment, file and `mass_build_info` follow from it.

    EngineOptions(device="cpu", mode="fast")

`server.settings.Settings` inherits the fields, `cli.setting_flags` makes flags of them, and the words among
them are labels of `mass_build_info`: a new option is a new field here and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mass_serve.engine.execution import Execution
from mass_serve.router.modes import MODE_NAMES, ModeName

if TYPE_CHECKING:
    import torch

GIB = 1 << 30
# What an embedding is: what the encoder's own pooling makes, or the mean of all tokens' last hidden states.
EmbeddingPooling = Literal["own", "mean"]
# What the linears of first passes are computed in: what all else is, or whole numbers of 8 bits.
FirstPassDtype = Literal["same", "int8"]
DEVICES = ("auto", "cpu", "cuda", "cuda:INDEX")


class EngineOptions(BaseModel):
    """How an engine serves a store."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field(
        default="auto",
        description=f"auto (cuda where there is one), {', '.join(DEVICES[1:-1])} or {DEVICES[-1]}",
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        default="auto",
        description="arithmetic of the encoder: float32, bfloat16, auto (bfloat16 where the device"
        " multiplies it itself), or int8 (what all tasks share in whole numbers, the rest as auto); heads and"
        " router are float32",
    )
    first_pass_dtype: FirstPassDtype = Field(
        default="same",
        description="arithmetic of the passes that search for the task: the dtype (same), or int8 for what is"
        " multiplied there, on a CPU and beside the encoder in memory",
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
    resident_task_bytes: int | None = Field(
        default=None,
        ge=0,
        description="memory for the weights of tasks, in bytes; those that were not used for longest are read"
        " from disk again (none: all stay in memory)",
    )
    embedding_pooling: EmbeddingPooling = Field(
        default="own",
        description="what an embedding is: what the encoder pools itself (own), or the mean over all tokens",
    )
    trusted_keys: Path | None = Field(
        default=None,
        description="PEM file of Ed25519 public keys; a store must be signed with one (extra `signing`)",
    )

    @field_validator("device")
    @classmethod
    def _device_is_one(cls, device: str) -> str:
        if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,3})?", device):
            raise ValueError(f"must be {', '.join(DEVICES[:-1])} or {DEVICES[-1]}, not {device!r}")
        return device

    @property
    def labels(self) -> dict[str, str]:
        """The options that are words and not numbers, as labels of a metric; what was left open is empty.

        A path is no word: where this machine keeps its files is not for everybody who reads metrics.
        """
        fields = type(self).model_fields.items()
        words = [name for name, field in fields if not {Path, int} & {*get_args(field.annotation)}]
        options = {name: getattr(self, name) for name in words} | {"dtype": self.chosen_dtype}
        return {
            name: str(value or "")
            for name, value in options.items()
            if value is None or isinstance(value, str)
        }

    @property
    def torch_device(self) -> torch.device:
        """The device, chosen where that was left open. Raises ValueError for one that is absent."""
        import torch  # flags are made of these options where nothing is computed

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.device == "auto":
            return torch.device("cuda" if count else "cpu")
        if self.device == "cpu":
            return torch.device("cpu")
        if not count:
            raise ValueError(
                f"device: {self.device} was asked for, and torch sees no CUDA device here; use cpu or auto"
            )
        # torch itself takes larger numbers, and makes others of them.
        index = int(self.device.partition(":")[2] or 0)
        if index >= count:
            raise ValueError(f"device: {self.device} was asked for, and the last one is cuda:{count - 1}")
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the encoder's weights. Raises as `torch_device`."""
        import torch

        chosen: torch.dtype = getattr(torch, self.chosen_dtype)
        return chosen

    @property
    def chosen_dtype(self) -> str:
        """The name of the dtype, chosen by the device where that was left open. Raises as `torch_device`."""
        if self.dtype != "auto":
            return self.dtype
        from mass_serve.kernels.bfloat16 import wide_dtype

        return str(wide_dtype(self.torch_device)).removeprefix("torch.")
