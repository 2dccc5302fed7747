"""The fused positions against their reference."""

from __future__ import annotations

import pytest
import torch

from mass_serve.kernels import segmented_positions
from mass_serve.kernels.backend import backend
from mass_serve.kernels.positions import reference
from tests.interpreter import DEVICE
from tests.kernels.splits import PATTERNS
from tests.kernels.test_positions import KINDS, case


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("registers", "class_token"), KINDS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_sample_gets_the_tokens_of_its_segment(
    pattern: str, registers: int, class_token: bool, dtype: torch.dtype
) -> None:
    patches, classes, positions, cuts = case(pattern, registers, class_token, dtype)
    with backend("fused"):
        own = [t.to(DEVICE) for t in positions]
        firsts = None if classes is None else [t.to(DEVICE) for t in classes]
        tokens = segmented_positions(patches.to(DEVICE), firsts, own, cuts).cpu()
    wanted = reference.segmented_positions(patches, classes, positions, cuts)
    rounding = 1e-2 if dtype == torch.bfloat16 else 0.0  # the interpreter's casts round otherwise
    torch.testing.assert_close(tokens, wanted, atol=rounding, rtol=rounding)
