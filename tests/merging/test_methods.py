"""The register of merging methods."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mass_serve.merging import methods
from mass_serve.merging.methods import METHODS, TALL_MASKS, TSV_M, MergingMethod


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_has_a_name_a_title_and_a_paper_that_its_file_names(method: MergingMethod) -> None:
    assert re.fullmatch(r"[a-z][a-z_]*", method.name)
    assert method.title
    assert re.fullmatch(r"\d{4}\.\d{5}", method.paper)
    files = Path(methods.__file__).parent.glob("*.py")
    assert any(f"arXiv:{method.paper}" in path.read_text() for path in files)


def test_what_needs_whole_models_cannot_be_had_from_blocks() -> None:
    assert TSV_M.needs == {"blocks"}
    assert TALL_MASKS.needs == {"finetuned", "data"}
    assert all(len(method.needs & {"blocks", "finetuned"}) == 1 for method in METHODS)
