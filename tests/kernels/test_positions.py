"""Class tokens, registers and positions in front of and on the patches of each segment."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mass_serve.kernels import segmented_positions
from tests.kernels.splits import PATTERNS, offsets

KINDS = [(0, True), (3, True), (0, False), (2, False)]  # registers, and whether there is a class token


def case(
    pattern: str, registers: int, class_token: bool, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor] | None, list[Tensor], tuple[int, ...]]:
    """The arguments of a call for images of 5 patches and 24 numbers."""
    torch.manual_seed(registers)
    cuts = offsets(pattern, samples=7, sets=4)
    patches = torch.randn(cuts[-1], 5, 24).to(dtype)
    classes = [torch.randn(24).to(dtype) for _ in cuts[1:]] if class_token else None
    positions = [torch.randn(5 + registers + class_token, 24).to(dtype) for _ in cuts[1:]]
    return patches, classes, positions, cuts


@pytest.mark.parametrize(("registers", "class_token"), KINDS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_sample_gets_the_tokens_of_its_segment(pattern: str, registers: int, class_token: bool) -> None:
    patches, classes, positions, cuts = case(pattern, registers, class_token, torch.float32)
    tokens = segmented_positions(patches, classes, positions, cuts)
    for i, (start, stop) in enumerate(pairwise(cuts)):
        for sample in range(start, stop):
            before = torch.zeros(registers + class_token, 24)
            if classes is not None:
                before[0] = classes[i]
            assert torch.equal(tokens[sample], torch.cat([before, patches[sample]]) + positions[i])
