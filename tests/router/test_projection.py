"""The projection-residual router on features whose task is known."""

from __future__ import annotations

import torch

from mass_serve.router import RouterConfig, SubspaceRouter, orthonormal_rows


def test_rounded_blocks_still_give_an_exact_projector() -> None:
    torch.manual_seed(0)
    exact = torch.linalg.qr(torch.randn(3, 64, 16)).Q.transpose(1, 2)
    rounded = exact.bfloat16()
    basis = orthonormal_rows(rounded).double()
    identity = torch.eye(16, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(basis @ basis.transpose(1, 2), identity, atol=1e-6, rtol=0)
    back = rounded.double() @ basis.transpose(1, 2) @ basis  # the rows lie in the space that the basis spans
    torch.testing.assert_close(back, rounded.double(), atol=1e-6, rtol=1e-5)


def test_a_feature_goes_to_the_subspace_it_lies_in() -> None:
    torch.manual_seed(1)
    blocks = torch.linalg.qr(torch.randn(5, 96, 12)).Q.transpose(1, 2).contiguous()
    router = SubspaceRouter(RouterConfig(layer=0), blocks)
    truth = torch.arange(5).repeat(4)
    features = torch.stack([torch.randn(12) @ blocks[t] + 0.05 * torch.randn(96) for t in truth])
    routing = router.route(features, torch.ones(20, 5, dtype=torch.bool))
    assert routing.residuals.argmin(1).equal(truth)
    assert routing.routing_coefficients.argmax(1).equal(truth)
    assert all(int(task) in chosen for task, chosen in zip(truth, routing.expert_sets, strict=True))


def test_only_candidates_are_chosen() -> None:
    torch.manual_seed(2)
    blocks = torch.linalg.qr(torch.randn(4, 32, 8)).Q.transpose(1, 2).contiguous()
    router = SubspaceRouter(RouterConfig(layer=0, threshold=0.0), blocks)
    candidates = torch.tensor([[True, False, False, True], [False, True, False, False]])
    routing = router.route(torch.randn(2, 32), candidates)
    assert set(routing.expert_sets[0]) <= {0, 3}
    assert routing.expert_sets[1] == (1,)
