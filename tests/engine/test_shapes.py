"""Drawn pictures of shapes: what evidence is measured on beside noise."""

from __future__ import annotations

import torch
from torch import Tensor

from mass_serve.engine.shapes import pictures_of_shapes

SIZE = 24


def pictures(count: int, seed: int = 0) -> Tensor:
    drawn = list(pictures_of_shapes(count, SIZE, torch.Generator().manual_seed(seed)))
    return torch.stack(drawn)


def test_they_are_pixels_and_the_same_from_one_seed() -> None:
    first = pictures(8)
    assert first.shape == (8, 3, SIZE, SIZE)
    assert first.dtype == torch.uint8
    assert torch.equal(first, pictures(8))
    assert not torch.equal(first, pictures(8, seed=1))


def test_every_second_one_is_without_colour() -> None:
    grey = [bool((picture == picture[0]).all()) for picture in pictures(8)]
    assert grey == [False, True] * 4


def test_some_are_on_black_or_white() -> None:
    """The ground of a picture is what its corners have most often."""
    grounds = [picture[:, 0, 0].tolist() for picture in pictures(200, seed=3)]
    plain = [ground in ([0, 0, 0], [255, 255, 255]) for ground in grounds]
    assert sum(plain[2::4] + plain[3::4]) > 50
    assert not any(plain[0::4] + plain[1::4])
    assert {tuple(ground) for ground, one in zip(grounds, plain, strict=True) if one} == {
        (0, 0, 0),
        (255, 255, 255),
    }


def test_they_have_few_shapes_as_often_as_many() -> None:
    colours = [len(picture.flatten(1).T.unique(dim=0)) for picture in pictures(60)]
    assert min(colours) <= 3
    assert max(colours) >= 12
