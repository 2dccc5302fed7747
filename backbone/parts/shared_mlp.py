"""The MLP of a block where a part of the tokens alone has one of its own, and the others share those.

    x_i + f(z_n(i)),   f(z) = fc2(act(fc1(z)))

for the tokens x_i, with z_i what enters the MLP and n(i) the token with an MLP of its own that is most like
token i: itself, where it has one. Attention stays that of all tokens. Of the patches those have one of their
own that are least like the mean patch, in cosine, and every token before the patches does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mass_serve.backbone.architecture import Block, BlockNames
from mass_serve.backbone.layout import Chosen, Tokens
from mass_serve.backbone.parts.block import hidden_layer, leave_mlp
from mass_serve.backbone.weights.metered import MeteredWeights
from mass_serve.backbone.weights.protocol import EncoderWeights


@dataclass(frozen=True)
class OwnMlp:
    """The tokens that have an MLP of their own in every block of a pass, and the weights that they have."""

    chosen: Chosen
    weights: EncoderWeights


def with_own_mlp(tokens: Tokens, before: int, share: float) -> OwnMlp:
    """Chooses, of each sample, the tokens `before` the patches and that share of the patches, rounded up."""
    chosen = tokens.layout.chosen(partial(least_alike, before, share), tokens.x)
    return OwnMlp(chosen, chosen.weights(tokens.sample_weights))


def shared_mlp(
    part: Block, names: BlockNames, tokens: Tokens, entering: Tensor, own: OwnMlp, meter: MeteredWeights
) -> Tokens:
    """The tokens and the MLP of every one, from `enter_mlp`'s output, the chosen ones having their `own`.

    What enters the MLP is measured of all tokens.
    """
    meter.measure(names.fc1, entering)
    hidden = hidden_layer(part, names, own.weights, own.chosen.taken(entering))
    changes = own.chosen.shared(own.weights.linear(names.fc2, hidden), tokens.x)
    return leave_mlp(part, names, tokens, tokens.x + changes)


def least_alike(before: int, share: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that are chosen of samples x [b, n, D], and which stands for which: see `layout.Choose`.

    Cosines are computed in float64 and compared in float32: the order of a sum, which may depend on the
    batch, changes one in some 2^28 of them, and which of two equal ones comes first does not depend on it.
    """
    units = _unit(x.double())
    mean = _unit(x[:, before:].double().mean(1, keepdim=True))
    alike = (units[:, before:] * mean).sum(-1).float()
    count = math.ceil(share * alike.shape[1])
    least = alike.sort(dim=1, stable=True).indices[:, :count].sort(dim=1).values + before
    first = torch.arange(before, device=x.device).expand(len(x), -1)
    places = torch.cat([first, least], dim=1)
    chosen = units.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    cosines = (units @ chosen.transpose(1, 2)).float()
    # The first of equal ones; argmax takes any.
    standing = cosines.sort(dim=2, descending=True, stable=True).indices[:, :, 0]
    own = torch.arange(places.shape[1], device=x.device).expand(len(x), -1)
    return places, standing.scatter(1, places, own)  # whatever rounding says of nearly parallel ones


def _unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt().clamp_min(torch.finfo(x.dtype).tiny)
