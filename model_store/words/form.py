"""A form of text towers: what has to be known of one library's files so that theirs can be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field

from mass_serve.backbone.architecture import bias_of, weight_of
from mass_serve.kernels.activation_names import Activation
from mass_serve.model_store.format.field_types import Size, StrictModel

LOGIT_SCALE = "logit_scale"  # its logarithm, in both forms

Table = dict[str, tuple[str, ...]]


class Settings(StrictModel):
    """What the shapes of a text tower do not tell. Raises pydantic's ValidationError for what cannot be."""

    num_attention_heads: Size
    activation: Activation
    layer_norm_eps: Annotated[float, Field(ge=1e-12, lt=1)]  # float32 adds smaller ones to nothing
    end_token: int | None


class Form(Protocol):
    """Text towers whose tensors are named alike."""

    @property
    def config_file(self) -> str:
        """The file in a model's folder that its configuration is in, where it has one."""
        ...

    @property
    def block_pattern(self) -> re.Pattern[str]:
        """Matches the name of a block's parameter; its first group is the block's number."""
        ...

    @property
    def transposed(self) -> frozenset[str]:
        """The parameters, by our names, that are [d_in, d_out] there."""
        ...

    def names(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Returns the form's one name for each tensor of the files; None for what is no part of the tower."""
        ...

    def check(self, path: Path, config: Mapping[str, Any]) -> None:
        """Raises CheckpointError where the configuration is that of a tower that ours is not."""
        ...

    def table(self, depth: int) -> Table:
        """Returns the form's names for every parameter of ours; several are stacked along their rows."""
        ...

    def settings(self, path: Path, config: Mapping[str, Any], sizes: Mapping[str, int]) -> Settings:
        """Reads a configuration that was checked; `sizes` are those of the weights, by our names.

        Raises CheckpointError for what it contradicts or lacks.
        """
        ...


def weight_and_bias(operation: str, *theirs: str) -> Table:
    """Returns the entries of one linear or LayerNorm."""
    return {of(operation): tuple(of(name) for name in theirs) for of in (weight_of, bias_of)}
