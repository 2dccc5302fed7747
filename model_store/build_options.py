"""Every choice of a build, typed once: the flags of `mass-serve build` follow from these fields.

    build(pretrained, tasks, "my-store", BuildOptions(top_k=2, block_dtype="float32"))

What a manifest has a default of its own for, its model says (`format.entries.RouterSpec`).
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mass_serve.backbone.architecture import Token
from mass_serve.model_store.format.block_format_names import BlockDtype, BlockFormat
from mass_serve.model_store.format.entries import FirstPass, HeadChoice, RouterSpec
from mass_serve.model_store.format.factoring import PatchEmbeddingForm
from mass_serve.model_store.format.preprocessing import EXACT, Decode
from mass_serve.model_store.mergeable import MERGEABLE_NAMES


def _as_in_manifest(name: str, description: str) -> Any:
    """Makes a field whose default is that of the router's field `name` in a manifest."""
    return Field(default=RouterSpec.model_fields[name].default, description=description)


# A quarter of the bytes of 16 bits, at the same accuracy in what was measured (benchmarks/block_formats.py).
DEFAULT_FORMAT: BlockFormat = "int4"
# Of blocks that no format of their own describes.
DEFAULT_DTYPE: BlockDtype = "bfloat16"
# The options that choose ranks, each in another way.
RANK_OPTIONS = ("compression_ratio", "rank", "energy", "budget")


class BuildOptions(BaseModel):
    """The choices of a build; None means the default that depends on the models.

    Whether numbers are in range is told when a build is planned, with the models at hand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Of these four at most one is given.
    compression_ratio: float | str | None = Field(
        default=None,
        description="share of the rank kept per task; with N/T, such as 2/T, N over the number of tasks, also"
        " when tasks are added (default: 1/T)",
    )
    rank: int | None = Field(
        default=None, description="singular vectors kept per task and matrix, in place of a ratio"
    )
    energy: float | None = Field(
        default=None, description="share of the squared singular values kept per task and matrix"
    )
    budget: str | None = Field(
        default=None,
        description="bytes of all blocks over those of the pretrained model, such as 1.3x: "
        "what loses least within them is kept",
    )
    mode: str = Field(
        default="exact",
        description="how much computing the search for the task is worth (see docs/method.md)",
    )
    router_layer: int | None = Field(
        default=None, description="block that routes, from 0 (default: three quarters of the depth)"
    )
    router_token: Token | None = Field(
        default=None, description="feature that is routed (default: class; without a class token mean)"
    )
    temperature: float = _as_in_manifest("temperature", "of the routing coefficients")
    threshold: float = _as_in_manifest("threshold", "coefficient above which a task is kept")
    top_k: int = _as_in_manifest("top_k", "most tasks kept per image")
    head_choice: HeadChoice = _as_in_manifest("head_choice", "how the winning head is chosen")
    # The paper's router is defined on the merged base.
    first_pass: FirstPass | None = Field(
        default=None,
        description="weights of the first pass (default: pretrained; with --mode paper merged_base)",
    )
    late_mlp_share: float = _as_in_manifest(
        "late_mlp_share", "patches or words with an MLP of their own in the rest of a first pass"
    )
    patch_embedding: PatchEmbeddingForm = Field(
        default="factored", description="how the patch convolution is kept"
    )
    max_tokens: int | None = Field(
        default=None,
        description="tokens of a text that are read (default: what the pretrained model's files say)",
    )
    decode: Decode = Field(
        default=EXACT,
        description="how much of a large JPEG is decoded; scaled: a half, quarter or eighth of its size,"
        " which is faster and changes pixels a little",
    )
    block_dtype: BlockDtype | None = Field(
        default=None, description="dtype of the singular blocks, in place of --format (not beside it)"
    )
    format: BlockFormat | None = Field(
        default=None,
        description=f"how the singular blocks are kept (default: --block-dtype, or {DEFAULT_FORMAT})",
    )
    merged_base: str = Field(
        default="auto",
        description="stored, or rebuilt at load; auto: what is quicker; or stored, merged by one of"
        f" {', '.join(MERGEABLE_NAMES)}",
    )
    allow_pickle: bool = Field(default=False, description="read .pt and .bin checkpoints")
    force: bool = Field(
        default=False,
        description="take tasks that are implausibly far from the base, adapters and tokenizers of another",
    )
    exact: bool = Field(
        default=False,
        description="decompose whole matrices; by default their leading part, with a measured bound",
    )

    @model_validator(mode="after")
    def _blocks_are_kept_in_one_way(self) -> Self:
        if self.format is not None and self.block_dtype not in (None, self.format):
            raise ValueError(f"format {self.format} and block_dtype {self.block_dtype}: give one of them")
        return self

    @property
    def block_format(self) -> BlockFormat:
        """How the singular blocks are kept: as the format says, or else the dtype, or else by default."""
        return self.format or self.block_dtype or DEFAULT_FORMAT
