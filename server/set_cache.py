"""The weights of recently used expert sets, within a byte budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backbone import ExpertBank, ExpertSet


@dataclass(frozen=True)
class SetKey:
    """An expert set in one of its two execution forms."""

    tasks: tuple[int, ...]
    materialised: bool


class SetCache:
    """Expert sets computed from the bank, the least recently used dropped first.

    Only the thread that owns the device calls it. A set larger than the whole budget is computed, used and
    not kept, so every set can be served within any budget.
    """

    def __init__(self, bank: ExpertBank, budget_bytes: int) -> None:
        self.bank = bank
        self.budget_bytes = budget_bytes
        self.hits = 0
        self.misses = 0
        self.nbytes = 0
        self._sets: OrderedDict[SetKey, ExpertSet] = OrderedDict()

    def __contains__(self, key: SetKey) -> bool:
        return key in self._sets

    def get(self, key: SetKey) -> ExpertSet:
        """The set's weights, from the cache or computed."""
        if key in self._sets:
            self.hits += 1
            self._sets.move_to_end(key)
            return self._sets[key]
        self.misses += 1
        # Room is made before the set is computed, so that the budget holds at the peak too.
        size = self._size(key)
        while self._sets and self.nbytes + size > self.budget_bytes:
            _, dropped = self._sets.popitem(last=False)
            self.nbytes -= dropped.nbytes
        expert_set = self.bank.expert_set(key.tasks, materialised=key.materialised)
        if self.nbytes + expert_set.nbytes <= self.budget_bytes:
            self._sets[key] = expert_set
            self.nbytes += expert_set.nbytes
        return expert_set

    def waves(self, keys: Sequence[SetKey]) -> Iterator[range]:
        """Splits the sets of a batch into runs that fit the budget together; a run has at least one set."""
        start, used = 0, 0
        for index, key in enumerate(keys):
            size = self._size(key)
            if index > start and used + size > self.budget_bytes:
                yield range(start, index)
                start, used = index, 0
            used += size
        if keys:
            yield range(start, len(keys))

    def _size(self, key: SetKey) -> int:
        return self.bank.expert_set_nbytes(len(key.tasks), materialised=key.materialised)
