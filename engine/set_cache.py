"""A cache of the weights of recently used expert sets, within a byte budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mass_serve.backbone import ExpertBank, ExpertSet

# The forms that an expert set runs in: shared low-rank blocks and a core, or merged weights of its own.
FORMS = LOW_RANK, MATERIALISED = ("low_rank", "materialised")


@dataclass(frozen=True)
class SetKey:
    """An expert set in one of its two execution forms."""

    expert_set: tuple[int, ...]
    materialised: bool

    @property
    def form(self) -> str:
        """Returns which of FORMS the set runs in."""
        return MATERIALISED if self.materialised else LOW_RANK


class SetCache:
    """Expert sets computed from the bank, the least recently used dropped first.

    Only the thread that owns the device calls it, but for `ready`. A set larger than the whole budget is
    computed, used and not kept, so every set can be served within any budget.
    """

    def __init__(self, bank: ExpertBank, budget_bytes: int) -> None:
        self.bank = bank
        self.budget_bytes = budget_bytes
        self.hits = 0
        self.misses = 0
        self.used = dict.fromkeys(FORMS, 0)  # segments computed, by the form of their set
        self.nbytes = 0
        self._sets: OrderedDict[SetKey, ExpertSet] = OrderedDict()
        self._changing = threading.Lock()

    def __contains__(self, key: SetKey) -> bool:
        return key in self._sets

    def get(self, keys: Sequence[SetKey]) -> list[ExpertSet]:
        """The weights of different sets that fit the budget together, from the cache or computed.

        Raises what reading a task raises that was dropped from memory.
        """
        found: dict[SetKey, ExpertSet] = {}
        with self._changing:
            self._let_go_of_dropped_tasks()
            for key in keys:
                if key in self._sets:
                    self._sets.move_to_end(key)
                    found[key] = self._sets[key]
            missing = [key for key in keys if key not in found]
            self._make_room(sum(self._size(key) for key in missing), kept=len(found))
        self.bank.tasks.touch({task for key in found if not key.materialised for task in key.expert_set})
        self.hits += len(found)
        self.misses += len(missing)
        for key in keys:
            self.used[key.form] += 1
        for materialised in (False, True):
            new = [key for key in missing if key.materialised is materialised]
            if new:
                weights = self.bank.expert_sets([key.expert_set for key in new], materialised=materialised)
                found.update(zip(new, weights, strict=True))
        for key in missing:
            self.put(key, found[key])
        with self._changing:
            self._let_go_of_dropped_tasks()
        return [found[key] for key in keys]

    def put(self, key: SetKey, weights: ExpertSet) -> None:
        """Keeps the weights of a set that is at hand, if there is room for them."""
        with self._changing:
            if key not in self._sets and self.nbytes + weights.nbytes <= self.budget_bytes:
                self._sets[key] = weights
                self.nbytes += weights.nbytes

    def ready(self) -> dict[SetKey, ExpertSet]:
        """The sets that are kept now, the least recently used first. Any thread may ask."""
        with self._changing:
            return dict(self._sets)

    def waves(self, keys: Sequence[SetKey]) -> Iterator[range]:
        """Splits the sets of a batch into runs that fit the budget together, and so do the weights of their
        tasks the budget for those; a run has at least one set.
        """
        start, used, tasks = 0, 0, set[int]()
        for index, key in enumerate(keys):
            size, more = self._size(key), tasks.union(key.expert_set)
            if index > start and (used + size > self.budget_bytes or not self.bank.tasks.fit(more)):
                yield range(start, index)
                start, used, more = index, 0, set(key.expert_set)
            used, tasks = used + size, more
        if keys:
            yield range(start, len(keys))

    def _let_go_of_dropped_tasks(self) -> None:
        """Drops sets that hold weights of a task which are no longer to be in memory.

        Those of a task that was read again since are other ones: both would take memory.
        """
        dropped = self.bank.tasks.take_dropped()
        for key in [key for key in self._sets if dropped and not key.materialised]:
            if not dropped.isdisjoint(key.expert_set):
                self.nbytes -= self._sets.pop(key).nbytes

    def _make_room(self, size: int, kept: int) -> None:
        """Drops sets, but not the `kept` last used ones, before others are computed: a peak counts too."""
        while len(self._sets) > kept and self.nbytes + size > self.budget_bytes:
            _, dropped = self._sets.popitem(last=False)
            self.nbytes -= dropped.nbytes

    def _size(self, key: SetKey) -> int:
        """The bytes that a set takes in its form, kept or not."""
        if (ready := self._sets.get(key)) is not None:
            return ready.nbytes
        return self.bank.expert_set_nbytes(key.expert_set, materialised=key.materialised)
