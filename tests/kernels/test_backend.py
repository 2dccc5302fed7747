"""Which form of an operation runs."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels import TaskDirections, segmented_linear, subspace_energies, subspace_residuals
from mass_serve.kernels.backend import backend, backend_for
from tests.kernels.segmented import Case

CPU = torch.device("cpu")


def test_the_fused_form_runs_on_cuda_only() -> None:
    assert backend_for(torch.device("cuda:1")) == "fused"
    assert backend_for(CPU) == "reference"


def test_an_override_ends_with_its_block_and_can_be_nested() -> None:
    with backend("fused"):
        assert backend_for(CPU) == "fused"
        with backend("reference"):
            assert backend_for(torch.device("cuda")) == "reference"
        assert backend_for(CPU) == "fused"
    assert backend_for(CPU) == "reference"


def test_the_public_operations_run_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    from mass_serve.kernels.energies import fused as energies
    from mass_serve.kernels.low_rank import fused
    from mass_serve.kernels.residual import fused as residual

    case, chosen = Case.random((0, 4), 4, 4, 1, torch.float32), torch.zeros(1)
    monkeypatch.setattr(fused, "segmented_linear", lambda *_: chosen)
    monkeypatch.setattr(residual, "subspace_residuals", lambda *_: chosen)
    monkeypatch.setattr(energies, "subspace_energies", lambda *_: chosen)
    arguments = (case.x, case.weight, case.deltas, case.rows)
    with backend("fused"):
        assert segmented_linear(*arguments) is chosen
        assert subspace_residuals(case.x, torch.zeros(1, 1, 4)) is chosen
        assert subspace_energies(case.x[None], TaskDirections.of([torch.zeros(1, 4)])) is chosen
    assert segmented_linear(*arguments) is not chosen
