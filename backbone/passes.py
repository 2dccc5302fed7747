"""The two passes over a batch, by the form of the arithmetic that fits the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor

from mass_serve.backbone.config import EncoderConfig
from mass_serve.backbone.expert_bank import ExpertBank, ExpertSet
from mass_serve.backbone.linear import DenseWeights, SegmentedWeights
from mass_serve.backbone.vit import early_pass, encode, encode_from, first_pass, late_pass
from mass_serve.kernels.backend import backend_for

Token = Literal["class", "mean"]


class Passes(Protocol):
    """The first and the second pass of one store."""

    def first(self, patches: Tensor) -> Tensor:
        """The router's features [B, D] of patches [B, L - 1, 3 p p]."""
        ...

    def early(self, patches: Tensor, stop: int, bases: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """A first pass up to block `stop`: its tokens and energies, as `backbone.vit.early_pass`."""
        ...

    def late(self, tokens: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The rest of it: the router's features and the embeddings, as `backbone.vit.late_pass`."""
        ...

    def second_from(
        self, tokens: Tensor, start: int, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]
    ) -> Tensor:
        """`second`, from the tokens [B, L, D] that enter block `start`."""
        ...

    def second(self, patches: Tensor, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]) -> Tensor:
        """The embeddings [B, P]; samples `offsets[i]:offsets[i + 1]` have `expert_sets[i]`."""
        ...


def passes_for(
    bank: ExpertBank, first_pass_weights: Mapping[str, Tensor], layer: int, token: Token, max_set_size: int
) -> Passes:
    """The passes over a bank's encoder: fused where the bank's tensors are on a GPU.

    The first pass, on its own weights, ends at the features of block `layer` (see `backbone.vit.first_pass`);
    no expert set has more than `max_set_size` tasks.
    """
    if backend_for(bank.device) == "fused":
        return FusedPasses(bank, first_pass_weights, layer, token, max_set_size)
    return ReferencePasses(bank, first_pass_weights, layer, token)


class ReferencePasses:
    """The passes in plain PyTorch, launched operation by operation."""

    def __init__(
        self, bank: ExpertBank, first_pass_weights: Mapping[str, Tensor], layer: int, token: Token
    ) -> None:
        self._bank = bank
        self._config: EncoderConfig = bank.config
        self._first_pass_weights = DenseWeights(first_pass_weights, bank.config.layer_norm_eps)
        self._layer = layer
        self._token: Token = token

    def first(self, patches: Tensor) -> Tensor:
        return first_pass(self._config, self._first_pass_weights, patches, self._layer, self._token)

    def early(self, patches: Tensor, stop: int, bases: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return early_pass(self._config, self._first_pass_weights, patches, stop, bases)

    def late(self, tokens: Tensor, start: int) -> tuple[Tensor, Tensor]:
        return late_pass(self._config, self._first_pass_weights, tokens, start, self._layer, self._token)

    def second(self, patches: Tensor, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]) -> Tensor:
        return encode(self._config, self._segmented(expert_sets, offsets), patches)

    def second_from(
        self, tokens: Tensor, start: int, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]
    ) -> Tensor:
        return encode_from(self._config, self._segmented(expert_sets, offsets), tokens, start)

    def _segmented(self, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]) -> SegmentedWeights:
        bank, eps = self._bank, self._config.layer_norm_eps
        return SegmentedWeights(bank.pretrained, bank, expert_sets, offsets, eps)


class FusedPasses(ReferencePasses):
    """The paper's first pass and the second pass in planned kernel launches; the others one by one."""

    def __init__(
        self,
        bank: ExpertBank,
        first_pass_weights: Mapping[str, Tensor],
        layer: int,
        token: Token,
        max_set_size: int,
    ) -> None:
        # Triton is there only where there is a GPU.
        from mass_serve.backbone.fused import RecordLayout
        from mass_serve.backbone.planned_pass import PlannedPass

        super().__init__(bank, first_pass_weights, layer, token)
        config, eps = bank.config, bank.config.layer_norm_eps
        plain = RecordLayout.of(first_pass_weights, None, 0)
        self._kept = first_pass_weights
        self._first_record = plain.dense_record(first_pass_weights)
        self._first = PlannedPass(
            lambda weights, patches: first_pass(config, weights, patches, layer, token), plain, eps
        )
        self._layout = RecordLayout.of(bank.pretrained, bank, max_set_size)
        self._second = PlannedPass(
            lambda weights, patches: encode(config, weights, patches), self._layout, eps
        )
        self._records: WeakKeyDictionary[ExpertSet, Tensor] = WeakKeyDictionary()

    def first(self, patches: Tensor) -> Tensor:
        return self._first(patches, (0, len(patches)), [self._first_record], [False])

    def second(self, patches: Tensor, expert_sets: Sequence[ExpertSet], offsets: Sequence[int]) -> Tensor:
        records = [self._record(expert_set) for expert_set in expert_sets]
        own_weights = [expert_set.materialised for expert_set in expert_sets]
        return self._second(patches, offsets, records, own_weights)

    def _record(self, expert_set: ExpertSet) -> Tensor:
        if expert_set not in self._records:
            self._records[expert_set] = self._layout.expert_record(self._bank, expert_set)
        return self._records[expert_set]
