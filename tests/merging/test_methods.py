"""The register of merging methods."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mass_serve.merging import TaskSingularVectors, methods, task_singular_vectors
from mass_serve.merging.methods import (
    DOGE,
    ISO_C,
    ISO_CTS,
    METHODS,
    TALL_MASKS,
    TSV_M,
    WEIGHT_AVERAGING,
    MergingMethod,
)
from mass_serve.merging.methods.ties import ties_threshold


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_has_a_name_a_title_and_a_paper_that_its_file_names(method: MergingMethod) -> None:
    assert re.fullmatch(r"[a-z][a-z_]*", method.name)
    assert method.title
    assert re.fullmatch(r"\d{4}\.\d{5}", method.paper)
    files = Path(methods.__file__).parent.glob("*.py")
    assert any(f"arXiv:{method.paper}" in path.read_text() for path in files)


# Others make all directions of a change equally strong, or scale it by its own norm.
KEEPING = tuple(method for method in METHODS if method not in (ISO_C, ISO_CTS, DOGE, WEIGHT_AVERAGING))


@pytest.mark.parametrize("method", KEEPING, ids=lambda method: method.name)
def test_what_a_method_merges_of_one_task_is_that_tasks_change(method: MergingMethod) -> None:
    """Consensus apart, which keeps nothing that fewer than two tasks want."""
    change = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    arguments: dict[str, tuple[object, ...]] = {
        "tsv_m": ([task_singular_vectors(change, 4)],),
        "ties": (change[None], torch.zeros(1)),
        "tall_masks": (change, change, 0.4),
        "consensus": (change[None], torch.full((1,), 0.4)),
    }
    merged = method.merge(*arguments.get(method.name, (change[None],)))
    expected = torch.zeros(6, 4) if method.name == "consensus" else change
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", KEEPING, ids=lambda method: method.name)
@pytest.mark.parametrize("changed", [1.0, 0.0])
def test_tasks_that_left_a_matrix_alone_merge_with_one_that_did_not(
    method: MergingMethod, changed: float
) -> None:
    """Nor does it matter if all of them did: an adapter leaves most matrices as they are."""
    change = changed * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    untouched, changes = torch.zeros(6, 4), torch.stack([change, torch.zeros(6, 4), torch.zeros(6, 4)])
    empty = TaskSingularVectors(torch.empty(6, 0), torch.empty(0), torch.empty(0, 4))
    own = task_singular_vectors(change, 4) if changed else empty
    arguments: dict[str, tuple[object, ...]] = {
        "tsv_m": ([own, empty, empty],),
        "ties": (changes, torch.tensor([ties_threshold(row.flatten()) for row in changes]) * 1e-6),
        "tall_masks": (change, change, 0.4),
        "consensus": (changes, torch.full((3,), 0.4)),
    }
    merged = method.merge(*arguments.get(method.name, (changes,)))
    expected = untouched if method.name == "consensus" else change
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-4)


def test_what_needs_whole_models_cannot_be_had_from_blocks() -> None:
    assert TSV_M.needs == {"blocks"}
    assert TALL_MASKS.needs == {"finetuned", "data"}
    assert all(len(method.needs & {"blocks", "finetuned"}) == 1 for method in METHODS)
