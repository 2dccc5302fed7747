"""Images of half the side, as `benchmarks.half_resolution` makes them."""

from __future__ import annotations

import pytest
import torch

from benchmarks.half_resolution import halved, on_half_grid
from mass_serve.backbone import PatchEmbedding, patchify


@pytest.mark.parametrize(("side", "half"), [(4, 2), (7, 4)])
def test_each_smaller_patch_is_of_the_pixels_in_its_place(side: int, half: int) -> None:
    part = PatchEmbedding(image_size=side * 4, patch_size=4)
    rows = torch.arange(side * 4.0).view(1, 1, -1, 1).expand(2, 3, -1, side * 4)  # brighter downwards
    found = halved(patchify(rows, 4), part)
    assert found.shape == (2, half * half, part.patch_width)
    means = found.mean(-1).view(2, half, half)
    assert (means[:, :, :1] == means).all()
    assert (means.diff(dim=1) > 0).all()
    torch.testing.assert_close(means.mean(), rows.mean())


def test_a_picture_of_pairs_of_equal_pixels_is_halved_exactly() -> None:
    part = PatchEmbedding(image_size=16, patch_size=4)
    small = torch.randn(2, 3, 8, 8)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(halved(patchify(large, 4), part), patchify(small, 4))


def test_the_tokens_before_the_patches_keep_their_positions() -> None:
    part = PatchEmbedding(image_size=28, patch_size=4, num_registers=2)
    positions = torch.randn(part.num_tokens, 8)
    found = on_half_grid({part.positions: positions, "other": torch.ones(1)}, part)
    assert found[part.positions].shape == (3 + 16, 8)
    assert torch.equal(found[part.positions][:3], positions[:3])
    constant = on_half_grid({part.positions: torch.ones(part.num_tokens, 8)}, part)
    torch.testing.assert_close(constant[part.positions], torch.ones(3 + 16, 8))
