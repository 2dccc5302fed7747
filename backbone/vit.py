"""The forward pass of a CLIP vision encoder, once for plain and for mixed-batch weights.

Three things set it apart from a training implementation: the first pass returns the router's feature and
computes nothing after it; the last block computes only what the class token needs; and every operation
gives a sample the same bits whatever else is in the batch (see `kernels.rows`, and the comments here).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mass_serve.backbone.config import EncoderConfig
from mass_serve.backbone.energies import EnergyMeter
from mass_serve.backbone.linear import EncoderWeights
from mass_serve.backbone.shares import in_shares

# A query count at which attention's inner products take the path that does not depend on the batch.
QUERY_ROWS = 8
HEAD_MULTIPLE = 16


def patchify(pixels: Tensor, patch_size: int) -> Tensor:
    """Whole patches [B, (H/p) (W/p), 3 p p] of pixels [B, 3, H, W], flattened as a convolution's weight."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    whole = pixels[:, :, : rows * patch_size, : columns * patch_size]
    grid = whole.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def first_pass(
    config: EncoderConfig, weights: EncoderWeights, patches: Tensor, layer: int, token: str
) -> Tensor:
    """The router's features [B, D]: what enters the MLP of block `layer`, after that block's LayerNorm 2.

    `token` is "class" (the class token) or "mean" (the mean over all tokens). Nothing after it is computed.
    """

    def features(samples: slice) -> Tensor:
        return _first_pass(config, weights.of_samples(samples), patches[samples], layer, token)

    return in_shares(features, patches)


def _first_pass(
    config: EncoderConfig, weights: EncoderWeights, patches: Tensor, layer: int, token: str
) -> Tensor:
    x = _blocks(config, weights, _embed(weights, patches), 0, layer)
    if token == "class":
        x = _class_attention(config, weights, layer, x)
    else:
        x = _attention(config, weights, layer, x)
    return weights.layer_norm(f"blocks.{layer}.layer_norm2", x).mean(1)


def first_pass_parameters(parameters: Iterable[str], layer: int) -> frozenset[str]:
    """The parameters that `first_pass` reads; the merged base needs no others in memory."""
    before = ("patch_embedding", "class_embedding", "position_embedding", "pre_layernorm")
    whole = tuple(f"blocks.{i}." for i in range(layer))
    half = tuple(f"blocks.{layer}.{part}" for part in ("layer_norm1", "attention", "layer_norm2"))
    return frozenset(name for name in parameters if name.startswith(before + whole + half))


def early_pass(
    config: EncoderConfig, weights: EncoderWeights, patches: Tensor, stop: int, bases: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The tokens [B, L, D] that enter block `stop`, and the energies [B, K, T] of K inputs till there.

    `bases` are those of `EnergyMeter`. The input of block `stop`'s own qkv counts, which costs no attention.
    """

    def early(samples: slice) -> tuple[Tensor, Tensor]:
        meter = EnergyMeter(weights.of_samples(samples), bases)
        x = _blocks(config, meter, _embed(meter, patches[samples]), 0, stop)
        if (qkv := f"blocks.{stop}.attention.qkv") in bases:
            meter.measure(qkv, meter.layer_norm(f"blocks.{stop}.layer_norm1", x))
        return x, meter.energies

    tokens, energies = in_shares(early, patches)
    return tokens, energies


def late_pass(
    config: EncoderConfig, weights: EncoderWeights, tokens: Tensor, start: int, layer: int, token: str
) -> tuple[Tensor, Tensor]:
    """The rest of a first pass, from the tokens [B, L, D] that enter block `start`.

    The router's features [B, D] as `first_pass` gives them, and the image embeddings [B, P].
    """

    def late(samples: slice) -> tuple[Tensor, Tensor]:
        own = weights.of_samples(samples)
        x = _blocks(config, own, tokens[samples], start, layer)
        if token == "class" and layer == config.depth - 1:
            x = _class_attention(config, own, layer, x)
        else:
            x = _attention(config, own, layer, x)
        normed = own.layer_norm(f"blocks.{layer}.layer_norm2", x)
        features = normed[:, 0] if token == "class" else normed.mean(1)
        return features, _finish(config, own, _mlp(config, own, layer, x), layer + 1)

    features, embeddings = in_shares(late, tokens)
    return features, embeddings


def encode(config: EncoderConfig, weights: EncoderWeights, patches: Tensor) -> Tensor:
    """The image embeddings [B, P] (or [B, D] without projection), from patches [B, L - 1, 3 p p]."""

    def whole(samples: slice) -> Tensor:
        own = weights.of_samples(samples)
        return _finish(config, own, _embed(own, patches[samples]), 0)

    return in_shares(whole, patches)


def encode_from(config: EncoderConfig, weights: EncoderWeights, tokens: Tensor, start: int) -> Tensor:
    """The image embeddings [B, P], from the tokens [B, L, D] that enter block `start`."""
    return in_shares(
        lambda samples: _finish(config, weights.of_samples(samples), tokens[samples], start), tokens
    )


def _finish(config: EncoderConfig, weights: EncoderWeights, x: Tensor, start: int) -> Tensor:
    """Block `start` and all after it, and the projection. The last block's output is for the class token."""
    last = config.depth - 1
    if start <= last:
        x = _blocks(config, weights, x, start, last)
        x = _class_attention(config, weights, last, x)
        x = _mlp(config, weights, last, x)
    embedding = weights.layer_norm("post_layernorm", x[:, :1])
    if config.projection_dim:
        embedding = weights.linear("projection", embedding)
    return embedding[:, 0]


def _embed(weights: EncoderWeights, patches: Tensor) -> Tensor:
    """Tokens [B, L, D]: class embedding and patch embeddings, positions added, normalised."""
    tokens = weights.add_positions(weights.linear("patch_embedding", patches))
    return weights.layer_norm("pre_layernorm", tokens)


def _blocks(config: EncoderConfig, weights: EncoderWeights, x: Tensor, start: int, stop: int) -> Tensor:
    """The tokens that enter block `stop`, from those that enter block `start`."""
    for i in range(start, stop):
        x = _block(config, weights, i, x)
    return x


def _block(config: EncoderConfig, weights: EncoderWeights, i: int, x: Tensor) -> Tensor:
    return _mlp(config, weights, i, _attention(config, weights, i, x))


def _attention(config: EncoderConfig, weights: EncoderWeights, i: int, x: Tensor) -> Tensor:
    """x and the self-attention of every token: [B, L, D] -> [B, L, D]."""
    normed = weights.layer_norm(f"blocks.{i}.layer_norm1", x)
    qkv = weights.linear(f"blocks.{i}.attention.qkv", normed)
    q, k, v = (_split_heads(part, config) for part in qkv.chunk(3, dim=-1))
    return weights.linear(f"blocks.{i}.attention.out", _join_heads(_attend(q, k, v)), residual=x)


def _class_attention(config: EncoderConfig, weights: EncoderWeights, i: int, x: Tensor) -> Tensor:
    """The class token of x and its self-attention: [B, L, D] -> [B, 1, D]."""
    normed = weights.layer_norm(f"blocks.{i}.layer_norm1", x)
    name, width = f"blocks.{i}.attention.qkv", config.width
    q = weights.linear(name, normed[:, :1], output_rows=slice(0, width))
    k, v = weights.linear(name, normed, output_rows=slice(width, 3 * width)).chunk(2, dim=-1)
    # One query is so short a product that its bits would depend on the batch; eight equal ones are not.
    queries = _split_heads(q, config).expand(-1, -1, QUERY_ROWS, -1).contiguous()
    attended = _attend(queries, _split_heads(k, config), _split_heads(v, config))
    residual = x[:, :1].contiguous()
    return weights.linear(f"blocks.{i}.attention.out", _join_heads(attended[:, :, :1]), residual=residual)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention, [B, heads, n, d] each, with the same bits for a sample in any batch.

    Two things make PyTorch's depend on the batch on a CPU: heads of 8 numbers, whose products depend on where
    a thread's buffer lies in memory, so heads are filled up with zeros to a multiple of 16; and a single
    (sample, head), which the matrix library then splits among its own threads, so it is computed twice.
    """
    if q.shape[0] * q.shape[1] == 1:
        return _attend(*(torch.cat([part, part]) for part in (q, k, v)))[:1]
    dim = q.shape[-1]
    if padding := -dim % HEAD_MULTIPLE:
        q, k, v = (F.pad(part, (0, padding)) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=dim**-0.5)[..., :dim]


def _split_heads(x: Tensor, config: EncoderConfig) -> Tensor:
    """[B, n, D] -> [B, heads, n, D / heads]"""
    return x.view(x.shape[0], x.shape[1], config.num_attention_heads, -1).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    """[B, heads, n, D / heads] -> [B, n, D]"""
    return x.transpose(1, 2).flatten(2)


def _mlp(config: EncoderConfig, weights: EncoderWeights, i: int, x: Tensor) -> Tensor:
    """x and its MLP: [B, n, D] -> [B, n, D]."""
    normed = weights.layer_norm(f"blocks.{i}.layer_norm2", x)
    hidden = weights.linear(f"blocks.{i}.mlp.fc1", normed, activation=config.activation)
    return weights.linear(f"blocks.{i}.mlp.fc2", hidden, residual=x)
