"""Passes over texts of any lengths: every part of the encoder, packed, with the bits of each text alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
import torch
from torch import Tensor

from mass_serve.backbone import (
    Architecture,
    AttentionPooling,
    Batch,
    DenseWeights,
    Feature,
    Packed,
    PatchEmbedding,
    Probe,
    WordEmbedding,
    run,
    weight_of,
)
from mass_serve.backbone.passes import passes_for
from mass_serve.backbone.weights.segmented import SegmentedWeights
from mass_serve.kernels import TaskDirections
from tests import tiny
from tests.encoders import ROTARY_REACH, TEXT_ENCODERS

LENGTHS = (3, 17, 9, 1, 70, 17, 2, 33, 40)


def _texts(architecture: Architecture, lengths: tuple[int, ...] = LENGTHS) -> Packed:
    embedding = architecture.embedding
    assert isinstance(embedding, WordEmbedding)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, embedding.vocabulary, (sum(lengths),), generator=generator)
    types = torch.randint(0, embedding.num_types, (sum(lengths),), generator=generator)
    return Packed(torch.stack([ids, types], dim=1), lengths)


def _rows(batch: Batch) -> Tensor:
    assert isinstance(batch, Packed)
    return batch.rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TEXT_ENCODERS)
@torch.inference_mode()
def test_a_text_has_the_bits_that_it_has_alone(name: str, dtype: torch.dtype) -> None:
    architecture = TEXT_ENCODERS[name]
    weights = DenseWeights(tiny.pretrained(architecture, dtype))
    batch = _texts(architecture)
    together = run(architecture, weights, batch).embedding
    assert together.shape == (len(LENGTHS), architecture.embedding_dim)
    for row in range(len(batch)):
        assert torch.equal(run(architecture, weights, batch[[row]]).embedding[0], together[row])
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
    assert torch.equal(run(architecture, weights, batch[order]).embedding, together[order])


@pytest.mark.parametrize("name", ["bert", "mean of modernbert"])
@torch.inference_mode()
def test_the_number_of_threads_does_not_matter(name: str) -> None:
    architecture = TEXT_ENCODERS[name]
    weights, batch = DenseWeights(tiny.pretrained(architecture)), _texts(architecture)
    probe = Probe(_bases(architecture))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(run(architecture, weights, batch, probe=probe))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(other.embedding, found[0].embedding)
        assert torch.equal(other.energies, found[0].energies)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
@torch.inference_mode()
def test_every_segment_has_its_tasks_weights(name: str) -> None:
    architecture = TEXT_ENCODERS[name]
    pretrained = tiny.pretrained(architecture)
    bank = tiny.bank(architecture, pretrained, 3)
    sets = [(0,), (1, 2), (2,)]
    experts = [
        *bank.expert_sets(sets[:2], materialised=False),
        *bank.expert_sets(sets[2:], materialised=True),
    ]
    batch, offsets = _texts(architecture), [0, 4, 6, len(LENGTHS)]
    found = run(architecture, SegmentedWeights(bank, experts, offsets), batch).embedding
    through = passes_for(bank, pretrained, 2).second(batch, experts, offsets)
    assert torch.equal(found, through)
    for tasks, (start, stop) in zip(sets, pairwise(offsets), strict=True):
        merged = {parameter: bank.merged(parameter, tasks) for parameter in pretrained}
        wanted = run(architecture, DenseWeights(merged), batch[start:stop]).embedding
        torch.testing.assert_close(found[start:stop], wanted, atol=2e-4, rtol=1e-3)


def _bases(architecture: Architecture, stop: int = 1) -> dict[str, TaskDirections]:
    generator = torch.Generator().manual_seed(2)
    shapes = architecture.matrix_shapes()
    bases = {
        linear: torch.linalg.qr(torch.randn(2, shapes[weight_of(linear)][1], 4, generator=generator)).Q.mT
        for linear in architecture.early_linears(stop)
    }
    return {linear: TaskDirections.of(list(basis)) for linear, basis in bases.items()}


@pytest.mark.parametrize("token", ["class", "mean"])
@pytest.mark.parametrize("name", TEXT_ENCODERS)
@torch.inference_mode()
def test_a_pass_goes_on_from_where_it_stopped(name: str, token: str) -> None:
    architecture = TEXT_ENCODERS[name]
    weights, batch = DenseWeights(tiny.pretrained(architecture)), _texts(architecture)
    feature = Feature(architecture.depth - 1, "mean" if token == "mean" else "class")
    whole = run(architecture, weights, batch, probe=Probe(feature=feature))
    begun = run(architecture, weights, batch, stop=1, probe=Probe(_bases(architecture)))
    rest = begun.of_samples(torch.tensor([1, 4, 6]))
    ended = run(architecture, weights, rest.entering, start=1, probe=Probe(feature=feature))
    assert torch.equal(ended.embedding, whole.embedding[[1, 4, 6]])
    assert torch.equal(ended.feature, whole.feature[[1, 4, 6]])
    half_way = run(architecture, weights, batch, stop="feature", probe=Probe(feature=feature))
    torch.testing.assert_close(half_way.feature, whole.feature, atol=1e-5, rtol=1e-5)
    assert [len(tokens) for tokens in rest.entering] == [17, 70, 2]


@torch.inference_mode()
def test_evidence_is_measured_on_every_real_token_and_no_other() -> None:
    architecture = TEXT_ENCODERS["bert"]
    weights, batch, bases = DenseWeights(tiny.pretrained(architecture)), _texts(architecture), {}
    bases = _bases(architecture)
    energies = run(architecture, weights, batch, stop=1, probe=Probe(bases)).energies
    assert energies.shape == (len(LENGTHS), len(bases), 2)
    following = "blocks.1.attention.qkv"
    entering = _rows(run(architecture, weights, batch, stop=1).entering)
    places = [*accumulate(LENGTHS, initial=0)]
    for row, (start, stop) in enumerate(pairwise(places)):
        tokens = entering[start:stop]
        along = (tokens @ bases[following].rows[:8].T).square() / tokens.square().sum(1, keepdim=True)
        torch.testing.assert_close(energies[row, -1], along.mean(0).view(2, 4).sum(1), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_local_block_reaches_only_so_far() -> None:
    architecture = replace(TEXT_ENCODERS["modernbert"], depth=2)
    weights = DenseWeights(tiny.pretrained(architecture))
    batch = _texts(architecture, (30,))
    tokens = run(architecture, weights, batch, stop=1).entering
    assert isinstance(tokens, Packed)
    other = Packed(tokens.rows.clone(), tokens.lengths)
    other.rows[20] += 1.0
    far = run(architecture, weights, tokens, start=1).embedding
    # Block 1 is local, and its first token, which is pooled, is 20 places away.
    assert torch.equal(run(architecture, weights, other, start=1).embedding, far)
    near = Packed(tokens.rows.clone(), tokens.lengths)
    near.rows[ROTARY_REACH] += 1.0
    assert not torch.equal(run(architecture, weights, near, start=1).embedding, far)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_every_parameter_belongs_to_one_operation_or_table(name: str) -> None:
    architecture = TEXT_ENCODERS[name]
    operations = (*architecture.linears, *architecture.norms)
    named = [f"{operation}.{part}" for operation in operations for part in ("weight", "bias")]
    there = [*named, *architecture.positions]
    assert set(architecture.parameter_shapes()) <= set(there)
    assert {*map(weight_of, operations), *architecture.positions} <= architecture.parameter_shapes().keys()


def test_a_text_that_is_too_long_is_refused() -> None:
    architecture = TEXT_ENCODERS["bert"]
    weights = DenseWeights(tiny.pretrained(architecture))
    with pytest.raises(ValueError, match="a text has 71 tokens, this encoder takes 70"):
        run(architecture, weights, _texts(architecture, (3, 71)))


def test_an_encoder_reads_one_kind_of_input() -> None:
    architecture = TEXT_ENCODERS["bert"]
    with pytest.raises(ValueError, match="this encoder reads texts alone"):
        run(architecture, DenseWeights(tiny.pretrained(architecture)), torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="this encoder reads images alone"):
        run(tiny.CONFIG, DenseWeights(tiny.pretrained(tiny.CONFIG)), _texts(architecture))
    with pytest.raises(ValueError, match="this encoder reads text, not images"):
        _ = architecture.patches


def test_parts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="a text has no attention pooling"):
        replace(TEXT_ENCODERS["bert"], pooling=AttentionPooling(4, 64, "gelu"))
    with pytest.raises(ValueError, match="a part of the positions, and there are none"):
        WordEmbedding(10, 5, has_positions=False, num_types=2)
    with pytest.raises(ValueError, match="a post-norm block has a LayerNorm behind its attention"):
        replace(TEXT_ENCODERS["bert"].block, has_first_norm=False)
    with pytest.raises(ValueError, match="rotary positions need an even width of the heads, not 3"):
        replace(TEXT_ENCODERS["modernbert"].block, num_attention_heads=16)
    patches = PatchEmbedding(32, 8, has_class_token=False)
    with pytest.raises(ValueError, match="pooling 'class_without_norm' needs a class token"):
        replace(TEXT_ENCODERS["bert"], embedding=patches)


def test_a_packed_batch_is_indexed_by_samples() -> None:
    batch = Packed(torch.arange(10).unsqueeze(1), (3, 1, 4, 2))
    assert batch.offsets == (0, 3, 4, 8, 10)
    assert batch.places().tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 0, 1]
    for samples, rows in (
        (slice(1, 3), [3, 4, 5, 6, 7]),
        (slice(None, None, -2), [8, 9, 3]),
        ([3, 0], [8, 9, 0, 1, 2]),
        (torch.tensor([2]), [4, 5, 6, 7]),
    ):
        assert batch[samples].rows[:, 0].tolist() == rows
    assert len(batch[[]]) == len(batch[2:2]) == 0
    assert [len(own) for own in batch] == [3, 1, 4, 2]
    for lengths in ((3, 3), (10, 0), (-1, 11)):
        with pytest.raises(ValueError, match="10 rows cannot be samples of"):
            Packed(batch.rows, lengths)
