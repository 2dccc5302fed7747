"""What a picture looks like apart from what it shows: colours, contrast, edges and grain, as numbers.

The pretraining predicts them. Without such targets an encoder learns to ignore the look of a picture, and
then nothing inside it tells one domain from another.
"""

from __future__ import annotations

import torch
from torch import Tensor

BORDER = 4


def _log_energy(signal: Tensor) -> Tensor:
    return torch.log(signal.square().mean(dim=(1, 2)) + 1e-5)


def _edges(grey: Tensor) -> list[Tensor]:
    across, down = grey[:, :, 1:] - grey[:, :, :-1], grey[:, 1:] - grey[:, :-1]
    return [_log_energy(across), _log_energy(down)]


def style_statistics(pixels: Tensor) -> Tensor:
    """23 numbers for every picture of [B, 32, 32, 3] in 0..255: [B, 23]."""
    picture = pixels.float() / 255.0
    grey = picture.mean(dim=-1)
    inside = picture[:, BORDER:-BORDER, BORDER:-BORDER]
    rim = (picture.sum(dim=(1, 2)) - inside.sum(dim=(1, 2))) / (32 * 32 - 24 * 24)
    coarse = torch.nn.functional.avg_pool2d(grey[:, None], 4)[:, 0]
    saturation = (picture.amax(dim=-1) - picture.amin(dim=-1)).mean(dim=(1, 2))
    grain = grey[:, 1:-1, 1:-1] - 0.25 * (
        grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    )
    quarters = torch.nn.functional.avg_pool2d(grey[:, None], 16).flatten(1)
    scalars = [saturation, _log_energy(grain), _log_energy(grey - grey.mean(dim=(1, 2), keepdim=True))]
    columns = torch.stack([*scalars, *_edges(grey), *_edges(coarse)], dim=1)
    return torch.cat(
        [rim, inside.mean(dim=(1, 2)), inside.std(dim=(1, 2)), inside.amax(dim=(1, 2)), quarters, columns],
        dim=1,
    )


def thumbnail(pixels: Tensor) -> Tensor:
    """Each picture as 16 x 16 greys with mean 0 and deviation 1, whatever its light: [B, 256]."""
    grey = pixels.float().mean(dim=-1) / 255.0
    small = torch.nn.functional.avg_pool2d(grey[:, None], 2).flatten(1)
    centred = small - small.mean(dim=1, keepdim=True)
    return centred / (centred.std(dim=1, keepdim=True) + 0.02)
