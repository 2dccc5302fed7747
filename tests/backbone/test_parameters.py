"""The forms in which an encoder's parameters lie in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mass_serve.backbone import (
    DenseWeights,
    FormedParameters,
    quantised,
    reordered,
    run,
    with_quantised_linears,
)
from mass_serve.backbone.architecture import Architecture, AttentionPooling, BlockNames, Pooling, weight_of
from mass_serve.kernels.quantised import multiplies_int8
from mass_serve.kernels.reordered import gains_by_reordering
from tests import tiny
from tests.encoders import ENCODERS
from tests.tiny import CONFIG


def _quantised_afterwards(
    parameters: Iterable[tuple[str, Tensor]], encoder: Architecture, _dtype: torch.dtype
) -> FormedParameters:
    """As an engine has them for first passes in int8."""
    return with_quantised_linears(dict(parameters), encoder)


NEEDS_INT8 = pytest.mark.skipif(not multiplies_int8(), reason="no products of int8")
FORMS = [
    pytest.param(quantised, marks=NEEDS_INT8),
    pytest.param(_quantised_afterwards, marks=NEEDS_INT8),
    pytest.param(
        reordered,
        marks=pytest.mark.skipif(
            not gains_by_reordering(torch.device("cpu"), torch.float32), reason="nothing is reordered"
        ),
    ),
]
POOLED_BY_ATTENTION = ENCODERS["attention pooling"]


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts products inside the block by how many output rows of a weight they multiply."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of_rows = Counter[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name == "qlinear_pointwise":
            self.of_rows[args[3].shape[1]] += 1
        elif name == "_linear_pointwise":
            self.of_rows[args[1].shape[0]] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("formed", FORMS)
@pytest.mark.parametrize("encoder", [CONFIG, POOLED_BY_ATTENTION])
@torch.inference_mode()
def test_a_query_for_one_token_is_read_without_keys_and_values(
    encoder: Architecture, formed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = formed(tiny.pretrained(encoder).items(), encoder, torch.float32)
    width, pooling = encoder.width, encoder.pooling
    if isinstance(pooling, AttentionPooling):
        qkv, blocks = pooling.qkv, encoder.depth  # that have queries for all tokens
    else:
        qkv, blocks = BlockNames(encoder.depth - 1).qkv, encoder.depth - 1
    apart = {name: list(form.apart) for name, form in parameters.forms.items() if getattr(form, "apart", {})}
    assert apart == {weight_of(qkv): [range(width), range(width, 3 * width)]}
    patches = torch.randn(
        3,
        encoder.patches.num_tokens - encoder.patches.tokens_before_patches,
        3 * encoder.patches.patch_size**2,
    )
    with _Products() as in_parts:
        found = run(encoder, DenseWeights(parameters), patches).embedding
    monkeypatch.setattr("mass_serve.backbone.parameters._read_apart", lambda *_: ())
    whole = formed(tiny.pretrained(encoder).items(), encoder, torch.float32)
    with _Products() as of_all:
        wanted = run(encoder, DenseWeights(whole), patches).embedding
    torch.testing.assert_close(found, wanted)
    assert in_parts.of_rows[3 * width] == blocks
    assert of_all.of_rows[3 * width] == blocks + 2
    assert in_parts.of_rows - of_all.of_rows == Counter({width: 1, 2 * width: 1})


@pytest.mark.parametrize("formed", FORMS)
def test_where_the_mean_is_pooled_nothing_lies_apart(formed: Any) -> None:
    mean = replace(CONFIG, pooling=Pooling(CONFIG.embedding_dim, "mean"))
    parameters = formed(tiny.pretrained(mean).items(), mean, torch.float32)
    assert not any(getattr(form, "apart", {}) for form in parameters.forms.values())
