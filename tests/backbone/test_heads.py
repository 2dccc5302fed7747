"""Classification heads."""

from __future__ import annotations

import pytest
import torch

from mass_serve.backbone import ClassificationHead


def test_a_cosine_head_is_scaled_cosine_similarity() -> None:
    torch.manual_seed(0)
    z, weight = torch.randn(9, 12), 3 * torch.randn(5, 12)
    expected = 25.0 * torch.nn.functional.cosine_similarity(z[:, None], weight[None], dim=2)
    torch.testing.assert_close(ClassificationHead(weight, logit_scale=25.0).logits(z), expected)


def test_a_linear_head_is_affine() -> None:
    torch.manual_seed(0)
    z, weight, bias = torch.randn(9, 12), torch.randn(5, 12), torch.randn(5)
    torch.testing.assert_close(ClassificationHead(weight, bias=bias).logits(z), z @ weight.T + bias)


@pytest.mark.parametrize("arguments", [{}, {"bias": torch.zeros(2), "logit_scale": 1.0}])
def test_a_head_is_of_one_kind(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either cosine"):
        ClassificationHead(torch.randn(2, 3), **arguments)  # type: ignore[arg-type]
