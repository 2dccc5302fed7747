"""The forms in which an encoder's parameters lie in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mass_serve.backbone import DenseWeights, quantised, reordered, run
from mass_serve.backbone.architecture import BlockNames, Pooling, weight_of
from mass_serve.kernels.quantised import multiplies_int8
from mass_serve.kernels.reordered import gains_by_reordering
from tests import tiny
from tests.tiny import CONFIG

LAST_QKV = weight_of(BlockNames(CONFIG.depth - 1).qkv)
FORMS = [
    pytest.param(quantised, marks=pytest.mark.skipif(not multiplies_int8(), reason="no products of int8")),
    pytest.param(
        reordered,
        marks=pytest.mark.skipif(
            not gains_by_reordering(torch.device("cpu"), torch.float32), reason="nothing is reordered"
        ),
    ),
]


@pytest.mark.parametrize("formed", FORMS)
@torch.inference_mode()
def test_the_last_query_of_a_class_token_is_read_without_keys_and_values(
    formed: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = formed(tiny.pretrained(CONFIG).items(), CONFIG, torch.float32)
    width = CONFIG.width
    apart = {name: list(form.apart) for name, form in parameters.forms.items() if getattr(form, "apart", {})}
    assert apart == {LAST_QKV: [range(width), range(width, 3 * width)]}
    patches = torch.randn(3, CONFIG.patches.num_tokens - 1, 3 * CONFIG.patches.patch_size**2)
    found = run(CONFIG, DenseWeights(parameters), patches).embedding
    monkeypatch.setattr("mass_serve.backbone.parameters._read_apart", lambda *_: ())
    whole = formed(tiny.pretrained(CONFIG).items(), CONFIG, torch.float32)
    torch.testing.assert_close(found, run(CONFIG, DenseWeights(whole), patches).embedding)


@pytest.mark.parametrize("formed", FORMS)
def test_where_the_mean_is_pooled_nothing_lies_apart(formed: type) -> None:
    mean = replace(CONFIG, pooling=Pooling(CONFIG.embedding_dim, "mean"))
    parameters = formed(tiny.pretrained(mean).items(), mean, torch.float32)
    assert not any(getattr(form, "apart", {}) for form in parameters.forms.values())
