"""Classification heads."""

from __future__ import annotations

import pytest
import torch

from mass_serve.backbone import MULTI_CLASS, ClassificationHead, HiddenLayer, MultiLabel
from mass_serve.kernels.activation_names import HeadActivation


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


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu"])
def test_a_hidden_layer_comes_before_the_classes(activation: HeadActivation) -> None:
    torch.manual_seed(0)
    z, dense, bias = 3 * torch.randn(9, 12), torch.randn(7, 12), torch.randn(7)
    weight, shift, norm = torch.randn(5, 7), torch.randn(5), (torch.randn(7), torch.randn(7), 1e-3)
    hidden = getattr(torch.nn.functional, activation)(z @ dense.T + bias)
    head = ClassificationHead(weight, shift, hidden=HiddenLayer(dense, bias, activation))
    torch.testing.assert_close(head.logits(z), hidden @ weight.T + shift, atol=1e-4, rtol=1e-4)
    cosines = torch.nn.functional.cosine_similarity(hidden[:, None], weight[None], dim=2)
    torch.testing.assert_close(head.cosines(z), cosines, atol=1e-5, rtol=1e-4)
    normed = torch.nn.functional.layer_norm(hidden, (7,), norm[0], norm[1], norm[2])
    head = ClassificationHead(weight, shift, hidden=HiddenLayer(dense, bias, activation, norm))
    torch.testing.assert_close(head.logits(z), normed @ weight.T + shift, atol=1e-4, rtol=1e-4)
    for count in range(1, 9):
        assert torch.equal(head.logits(z[:count]), head.logits(z)[:count])
    assert head.to(torch.device("cpu")).logits(z).equal(head.logits(z))
    assert head.nbytes == (2 * 5 * 7 + 7 * 12) * 4  # the rows of the weight also at unit length


def test_one_label_is_the_likeliest_and_its_confidence_its_probability() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]])
    torch.testing.assert_close(MULTI_CLASS.probabilities(logits), logits.softmax(1))
    assert [MULTI_CLASS.given(row) for row in logits] == [(1,), (0,)]
    expected = logits.softmax(1).amax(1)
    torch.testing.assert_close(MULTI_CLASS.log_confidence(logits).exp(), expected)
    assert [MULTI_CLASS.probability_of_given(row) for row in logits] == pytest.approx(expected.tolist())


def test_labels_are_given_from_their_thresholds_on_the_likeliest_first() -> None:
    labelling = MultiLabel(torch.tensor([0.5, 0.9, 0.1, 0.0]))
    logits = torch.tensor([0.0, 2.0, -1.0, -50.0])
    probabilities = logits.sigmoid()
    torch.testing.assert_close(labelling.probabilities(logits), probabilities)
    assert labelling.given(logits) == (0, 2, 3)
    p = probabilities.tolist()
    assert labelling.probability_of_given(logits) == pytest.approx(p[0] * (1 - p[1]) * p[2] * p[3])
    assert labelling.given(torch.full((4,), 50.0)) == (0, 1, 2, 3)
    assert MultiLabel(torch.ones(4)).given(logits) == ()


def test_a_head_is_as_sure_of_no_label_as_of_one() -> None:
    labelling = MultiLabel(torch.full((3,), 0.5))
    logits = torch.tensor([[-3.0, -9.0, -4.0], [3.0, -9.0, -4.0], [0.0, -9.0, -4.0]])
    sure, as_sure, unsure = labelling.log_confidence(logits).exp().tolist()
    assert sure == pytest.approx(as_sure)
    assert unsure == pytest.approx(0.5)
