"""One pass through the encoder, from where it starts to where it stops, with what is measured on the way.

    run(architecture, weights, patches).embedding                                # a whole pass
    run(architecture, weights, words, stop="states").states                      # what each token has become
    run(architecture, weights, patches, stop=4, probe=Probe(bases)).energies     # early evidence
    run(architecture, weights, tokens, start=4, probe=Probe(feature=at)).feature # the rest of that pass

Two things set it apart from a training implementation: a pass computes nothing that was not asked for (one
that stops at the router's feature nothing after it, the last block only what is asked of it), and
every operation gives a sample the same bits whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from torch import Tensor

from mass_serve.backbone.architecture import (
    Architecture,
    AttentionPooling,
    BlockNames,
    PatchEmbedding,
    Token,
    WordEmbedding,
)
from mass_serve.backbone.layout import Layout, Tokens
from mass_serve.backbone.packed import Batch, Packed, joined
from mass_serve.backbone.parts.attention_pooling import attention_pool
from mass_serve.backbone.parts.block import attention, class_attention, enter_attention, enter_mlp, mlp
from mass_serve.backbone.parts.patch_embedding import embed
from mass_serve.backbone.parts.pooling import pool
from mass_serve.backbone.parts.shared_mlp import OwnMlp, shared_mlp, with_own_mlp
from mass_serve.backbone.parts.word_embedding import embed_words
from mass_serve.backbone.shares import in_shares
from mass_serve.backbone.weights.metered import MeteredWeights
from mass_serve.backbone.weights.protocol import BatchWeights, EncoderWeights
from mass_serve.kernels import TaskDirections
from mass_serve.kernels.transfers import uploaded

# Where a pass ends: before the block of that index, at the router's feature, with the last hidden states of
# all tokens, or with the embedding that is made of those.
Stop = int | Literal["feature", "states", "embedding"]
Output = Literal["tokens", "energies", "feature", "states", "embedding"]


@dataclass(frozen=True)
class Feature:
    """The router's feature: what enters the MLP of one block, after that block's second LayerNorm."""

    layer: int
    token: Token  # the class token, or the mean over all tokens


@dataclass(frozen=True, eq=False)
class Probe:
    """Holds what a pass measures on its way."""

    # By linear, the directions of each task. Measured is the energy of the linear's input within each task's
    # subspace (see `backbone.weights.metered`).
    bases: Mapping[str, TaskDirections] = field(default_factory=dict)
    feature: Feature | None = None
    # Whose energies: the class token's, or the mean token's; None: all, of which every third patch counts, or
    # every token of a text.
    token: Token | None = None

    def of_tasks(self, tasks: Tensor) -> Probe:
        """Returns what measures the energies of the tasks alone that `tasks` [n] int64 numbers."""
        return replace(self, bases={linear: basis.select(tasks) for linear, basis in self.bases.items()})

    @property
    def key(self) -> tuple[object, ...]:
        """Returns what is equal for probes that measure the same by the same tensors."""
        return (
            self.feature,
            self.token,
            *((linear, basis.rows.data_ptr()) for linear, basis in self.bases.items()),
        )


@dataclass(frozen=True)
class PassResult:
    """Holds what was asked of a pass. Reading anything else raises KeyError."""

    outputs: Mapping[Output, Batch]  # each [B, ...]

    @property
    def entering(self) -> Batch:
        """The tokens that enter the block where the pass stopped: [B, L, D], or packed, of texts."""
        return self.outputs["tokens"]

    @property
    def tokens(self) -> Tensor:
        """Those of samples of one length, [B, L, D]."""
        return self._tensor("tokens")

    @property
    def energies(self) -> Tensor:
        """The energies [B, K, T] of the probe's K linears, in forward order; [B, K, 2 T] with profiles."""
        return self._tensor("energies")

    @property
    def feature(self) -> Tensor:
        """The router's feature [B, D]."""
        return self._tensor("feature")

    @property
    def states(self) -> Batch:
        """The last hidden states of all tokens: [B, L, D], or packed, of texts.

        They are behind the LayerNorm that the pooling has, where it has one.
        """
        return self.outputs["states"]

    @property
    def embedding(self) -> Tensor:
        """The image embedding [B, P]."""
        return self._tensor("embedding")

    def each(self, change: Callable[[Tensor], Tensor]) -> PassResult:
        """The result of equally long samples with every tensor changed in that way."""
        return PassResult({name: change(self._tensor(name)) for name in self.outputs})

    def of_samples(self, samples: Tensor) -> PassResult:
        """The result of the samples that `samples` [n] int64 on the CPU numbers; a GPU is told them once."""
        there = uploaded(samples, next(iter(self.outputs.values())).device)
        return PassResult(
            {
                name: output[samples if isinstance(output, Packed) else there]
                for name, output in self.outputs.items()
            }
        )

    @classmethod
    def joined(cls, results: Sequence[PassResult]) -> PassResult:
        """The results of several shares of a batch, one behind the other."""
        if len(results) == 1:
            return results[0]
        names = results[0].outputs
        return cls({name: joined([result.outputs[name] for result in results]) for name in names})

    def _tensor(self, name: Output) -> Tensor:
        output = self.outputs[name]
        assert isinstance(output, Tensor)
        return output


def run(
    architecture: Architecture,
    weights: BatchWeights,
    x: Batch,
    start: int | None = None,
    stop: Stop = "embedding",
    probe: Probe | None = None,
    mlp_share: float = 1.0,
) -> PassResult:
    """Runs a pass: gives tokens, states or embedding by its stop, and what the probe has.

    x are patches [B, L - N, 3 p p] or words (packed, [N, 2]), or with `start` the tokens that enter that
    block. A pass that stops before a block measures that block's own qkv too, whose input costs no attention.
    With an `mlp_share` below 1 that share of the patches, or words, alone has an MLP of its own in all blocks
    but the last (see `backbone.parts.shared_mlp`).

    Raises ValueError for tokens that are to stop at a block that they do not start before, and where the
    probe asks for something that is not on the pass.
    """
    probe = probe or Probe()
    blocks = _blocks_of(architecture, start, stop, probe)

    def of_share(weights: BatchWeights, x: Batch) -> PassResult:
        return _run(architecture, weights, x, blocks, stop, probe, mlp_share, embedded=start is not None)

    if not weights.divisible:
        return of_share(weights, x)
    shares = in_shares(lambda samples: of_share(weights.of_samples(samples), x[samples]), x)
    return PassResult.joined(shares)


def _blocks_of(architecture: Architecture, start: int | None, stop: Stop, probe: Probe) -> list[BlockNames]:
    """The blocks of a pass, of which the last may stop half-way, at the router's feature."""
    end = architecture.depth
    if isinstance(stop, int):
        if start is not None and start >= stop:  # the caller would get back the tensor that it gave
            raise ValueError(f"a pass from block {start} to block {stop} has no block")
        end = stop
    elif stop == "feature":
        if probe.feature is None:
            raise ValueError("a pass that stops at the router's feature needs a probe that has one")
        end = probe.feature.layer + 1
    blocks = list(islice(architecture.blocks(), start or 0, end))
    if probe.feature is not None and probe.feature.token not in architecture.tokens:
        raise ValueError(f"the router's feature cannot be of the {probe.feature.token} token: there is none")
    if probe.feature is not None and probe.feature.layer not in {names.index for names in blocks}:
        raise ValueError(f"block {probe.feature.layer} is not on a pass from block {start or 0} to {stop}")
    return blocks


def _run(
    architecture: Architecture,
    weights: BatchWeights,
    x: Batch,
    blocks: Sequence[BlockNames],
    stop: Stop,
    probe: Probe,
    mlp_share: float,
    *,
    embedded: bool,
) -> PassResult:
    """Runs the blocks, which are known to fit, for one share of the samples."""
    eps, found = architecture.block.layer_norm_eps, dict[Output, Batch]()
    tokens = Tokens.of(x, weights)
    meter = MeteredWeights(
        tokens.weights, probe.bases, tokens.layout, architecture.evidence_stride, probe.token
    )
    tokens = replace(tokens, weights=meter)
    if not embedded:
        tokens = tokens.each(_embed(architecture, meter, x, eps))
    own = None
    if mlp_share < 1:
        own = with_own_mlp(tokens, _before_patches(architecture), mlp_share)
    tokens = _through_blocks(architecture, blocks, tokens, stop, probe.feature, found, own, meter)
    if isinstance(stop, int):
        found["tokens"] = tokens.layout.batch(tokens.x)
        following = BlockNames(stop)
        if following.qkv in probe.bases:
            meter.measure(following.qkv, enter_attention(architecture.block, following, tokens))
    elif stop == "states":
        found["states"] = tokens.layout.batch(_last_states(architecture, tokens, eps))
    elif stop == "embedding":
        found["embedding"] = _pool(architecture, tokens, eps)
    if probe.bases:
        found["energies"] = meter.energies
    return PassResult(found)


def _embed(architecture: Architecture, weights: EncoderWeights, x: Batch, eps: float) -> Tensor:
    """The tokens of a batch's words or patches. Raises ValueError for what the encoder does not read."""
    match architecture.embedding, x:
        case WordEmbedding() as part, Packed():
            return embed_words(part, weights, x, eps)
        case PatchEmbedding() as part, Tensor():
            return embed(part, weights, x, eps)
    raise ValueError(f"this encoder reads {'texts' if architecture.reads_text else 'images'} alone")


def _last_states(architecture: Architecture, tokens: Tokens, eps: float) -> Tensor:
    part = architecture.pooling
    return tokens.weights.layer_norm(part.norm, tokens.x, eps) if part.norm in part.norms else tokens.x


def _pool(architecture: Architecture, tokens: Tokens, eps: float) -> Tensor:
    part = architecture.pooling
    if isinstance(part, AttentionPooling):
        return attention_pool(part, tokens, eps)
    return pool(part, architecture.embedding.tokens_before_patches, tokens, eps)


def _through_blocks(
    architecture: Architecture,
    blocks: Sequence[BlockNames],
    tokens: Tokens,
    stop: Stop,
    feature: Feature | None,
    found: dict[Output, Batch],
    own: OwnMlp | None,
    meter: MeteredWeights,
) -> Tokens:
    """Returns what leaves the last block: all tokens, or the class token where no more is asked for.

    Leaves the router's feature in `found` on the way; a pass that stops there leaves that block half-way.
    """
    block = architecture.block
    for names in blocks:
        is_last, is_mean = names is blocks[-1], feature == Feature(names.index, "mean")
        leave_all = (
            isinstance(stop, int)
            or stop == "states"
            or (stop == "embedding" and architecture.pooling.needs_all_tokens)
        )
        class_suffices = is_last and not leave_all and not is_mean
        tokens = (class_attention if class_suffices else attention)(block, names, tokens)
        entering = enter_mlp(block, names, tokens)
        if feature is not None and names.index == feature.layer:
            found["feature"] = _feature(tokens.layout, entering, is_mean=is_mean)
        if own is not None and not is_last:
            tokens = shared_mlp(block, names, tokens, entering, own, meter)
        elif not (is_last and stop == "feature"):
            tokens = mlp(block, names, tokens, entering)
    return tokens


def _before_patches(architecture: Architecture) -> int:
    """How many tokens stand before the patches; of a text, its first word, which may stand for it."""
    return 1 if architecture.reads_text else architecture.embedding.tokens_before_patches


def _feature(layout: Layout, entering: Tensor, *, is_mean: bool) -> Tensor:
    """The router's feature [B, D] of what enters an MLP."""
    if is_mean:
        return layout.reduced(lambda tokens: tokens.mean(1), entering)
    return layout.firsts(entering)[:, 0]
