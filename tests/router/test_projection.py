"""The projection-residual router on features whose task is known."""

from __future__ import annotations

import torch

from mass_serve.router import SubspaceRouter
from mass_serve.router.projection import TaskSubspaces, explained_share, orthonormal_rows


def test_rounded_blocks_still_give_an_exact_projector() -> None:
    torch.manual_seed(0)
    exact = torch.linalg.qr(torch.randn(3, 64, 16)).Q.transpose(1, 2)
    rounded = exact.bfloat16()
    basis = orthonormal_rows(rounded).double()
    identity = torch.eye(16, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(basis @ basis.transpose(1, 2), identity, atol=1e-6, rtol=0)
    back = rounded.double() @ basis.transpose(1, 2) @ basis  # the rows lie in the space that the basis spans
    torch.testing.assert_close(back, rounded.double(), atol=1e-6, rtol=1e-5)


def test_rows_that_depend_on_each_other_have_a_basis_and_change_no_other_tasks() -> None:
    torch.manual_seed(0)
    blocks = torch.linalg.qr(torch.randn(4, 64, 6)).Q.mT.contiguous()
    alone = orthonormal_rows(blocks[:1])
    blocks[1, 3] = blocks[1, 2] + 1e-6 * blocks[1, 3]
    blocks[2, 4:] = 0
    blocks[3] = 0
    bases = orthonormal_rows(blocks)
    identity = torch.eye(6).expand(4, -1, -1)
    torch.testing.assert_close(bases @ bases.mT, identity, atol=1e-6, rtol=0)
    torch.testing.assert_close(blocks @ bases.mT @ bases, blocks, atol=1e-6, rtol=0)
    assert bases[:1].equal(alone)


def test_a_feature_goes_to_the_subspace_it_lies_in() -> None:
    torch.manual_seed(1)
    blocks = torch.linalg.qr(torch.randn(5, 96, 12)).Q.transpose(1, 2).contiguous()
    router = SubspaceRouter(blocks, temperature=1.0, threshold=0.2, top_k=3)
    truth = torch.arange(5).repeat(4)
    features = torch.stack([torch.randn(12) @ blocks[t] + 0.05 * torch.randn(96) for t in truth])
    residuals = router.residuals(features)
    coefficients = router.coefficients(residuals, torch.ones(20, 5, dtype=torch.bool))
    assert residuals.argmin(1).equal(truth)
    assert coefficients.argmax(1).equal(truth)
    expert_sets = router.expert_sets(coefficients)
    assert all(int(task) in chosen for task, chosen in zip(truth, expert_sets, strict=True))


def test_only_candidates_are_chosen() -> None:
    torch.manual_seed(2)
    blocks = torch.linalg.qr(torch.randn(4, 32, 8)).Q.transpose(1, 2).contiguous()
    router = SubspaceRouter(blocks, temperature=1.0, threshold=0.0, top_k=3)
    candidates = torch.tensor([[True, False, False, True], [False, True, False, False]])
    coefficients = router.coefficients(router.residuals(torch.randn(2, 32)), candidates)
    first, second = router.expert_sets(coefficients)
    assert set(first) <= {0, 3}
    assert second == (1,)


def test_without_directions_no_task_is_likelier_than_another() -> None:
    """As where one of them left the router's matrix alone."""
    router = SubspaceRouter(torch.empty(4, 0, 32), temperature=1.0, threshold=0.2, top_k=3)
    coefficients = router.coefficients(
        router.residuals(torch.randn(3, 32)), torch.ones(3, 4, dtype=torch.bool)
    )
    torch.testing.assert_close(coefficients, torch.full((3, 4), 0.25))


def test_a_task_whose_block_is_0_explains_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.stack([torch.randn(4, 16, generator=generator), torch.zeros(4, 16)])
    features = torch.randn(5, 16, generator=generator)
    residuals = TaskSubspaces(blocks).residuals(features)
    torch.testing.assert_close(residuals[:, 1], features.norm(dim=1))
    assert explained_share(features, residuals)[:, 1].lt(1e-6).all()
    alone = TaskSubspaces(blocks[:1]).residuals(features)
    torch.testing.assert_close(residuals[:, :1], alone)
