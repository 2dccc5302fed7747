"""Raw evidence of a suite's inputs as tensors: whatever is chosen afterwards is a replay over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.backbone import Packed, passes_for
from mass_serve.engine import Engine
from mass_serve.engine.drawn_inputs import drawn_inputs
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.execution import Execution
from mass_serve.engine.exits import measured_prices
from mass_serve.engine.heads import Heads
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.engine.options import GIB
from mass_serve.engine.second_passes import SecondPass
from mass_serve.evaluation.data import input_batches, of_whole_inputs
from mass_serve.evaluation.inputs import Item, drawn, files_of
from mass_serve.router import early_stop

# Second passes are recorded of so many of the likeliest tasks, and of the true one.
LIKELIEST = 3
MOST = 60  # inputs of a task and part


@dataclass(frozen=True)
class Recorded:
    """What a first pass tells of N inputs and T tasks, and second passes with one task each."""

    tasks: Tensor  # [N] int64: the true one
    early: Tensor  # [N, K, T] or [N, K, 2 T]: energies, as `router.energies` has them
    late: Tensor  # the same behind the first third of the pass
    features: Tensor  # [N, D]: the router's
    first_scores: Tensor  # [N, T, 3]: head scores of the first pass's embedding
    second_scores: Tensor  # [N, T, 3]: of each task's second pass; NaN where there was none
    right: Tensor  # [N] bool: the true task's label is right after a second pass with it
    resumed_right: Tensor  # [N] bool: after one that resumes where early evidence is judged


@dataclass(frozen=True)
class Suite:
    """A store in memory, and the folder of its inputs."""

    name: str
    folder: Path
    loaded: LoadedStore
    engine: Engine

    @classmethod
    def open(cls, folder: Path) -> Suite:
        """Opens `folder/store`."""
        loaded = load_store(
            str(folder / "store"), torch.device("cpu"), torch.float32, "exact", calibrated=False
        )
        return cls(folder.name, folder, loaded, Engine(loaded, Execution.LOW_RANK, GIB))

    @property
    def search(self) -> EvidenceSearch:
        """What searches for tasks when the suite's store is served."""
        search = self.engine._search
        assert isinstance(search, EvidenceSearch)
        return search

    @cached_property
    def exit_prices(self) -> Tensor:
        """Returns the prices [T] of the tasks' early exits (`engine.exits`), measured anew."""
        passes = passes_for(self.loaded.bank, self.loaded.first_pass, 1)
        return measured_prices(self.loaded, passes, drawn_inputs(self.loaded), self.loaded.routed)

    def part(self, name: str, records: Path, most: int) -> Recorded:
        """The recorded inputs of one part, at most so many a task; recorded now if they are not yet."""
        path = records / f"{self.name}-{name}-{most}-{self.loaded.store_revision}.pt"
        if not path.exists():
            records.mkdir(parents=True, exist_ok=True)
            torch.save(vars(self._record(self.folder / name, most)), path)
        return Recorded(**torch.load(path, weights_only=True))

    def _record(self, root: Path, most: int) -> Recorded:
        files, names = files_of(self.engine), list(self.engine.tasks)
        chosen = drawn(files.labelled(root, of_whole_inputs(self.engine.tasks)), most)
        items: list[Item] = [one.item for one in chosen]
        parts, done = [], 0
        for tensors in input_batches(files, root, items):
            own = chosen[done : done + len(tensors)]
            truth = torch.tensor([names.index(one.task) for one in own])
            targets = torch.tensor([one.target[0] for one in own])  # of tasks that give one label
            like = self.loaded.bank.like
            parts.append(self._of_batch(files.batch(self.engine.architecture, tensors, like), truth, targets))
            done += len(tensors)
        return Recorded(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    @torch.inference_mode()
    def _of_batch(self, inputs: Tensor | Packed, truth: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The fields of a record of one batch."""
        begun = self.search.begin(inputs)
        ended = self.search.end(begun)
        late, features, cosines = self.search.measured(begun, ended)
        first_scores = torch.stack([head.scores(ended.embedding) for head in self.loaded.routed_heads], dim=1)
        every = torch.ones(len(truth), len(self.engine.tasks), dtype=torch.bool)
        early = self.search.router.early(begun.energies, every)
        whole = self.search.router.whole(early.energies, late, features, cosines, every)
        wanted = whole.scores.argsort(1, descending=True)[:, :LIKELIEST]
        tried = torch.cat([wanted, truth.unsqueeze(1)], dim=1).tolist()
        passes = [SecondPass(row, (task,)) for row, own in enumerate(tried) for task in sorted(set(own))]
        stop = early_stop(self.engine.architecture.depth)
        resumed = [
            SecondPass(row, (task,), stop, tokens)
            for row, (task, tokens) in enumerate(zip(truth.tolist(), begun.entering, strict=True))
        ]
        second_scores = torch.full_like(first_scores, torch.nan)
        right, resumed_right = torch.zeros(len(truth)).bool(), torch.zeros(len(truth)).bool()
        for row, results in self._heads(passes, inputs).items():
            for task, label, scores in results:
                second_scores[row, task] = scores
                right[row] |= task == int(truth[row]) and label == int(targets[row])
        for row, ((_, label, _),) in self._heads(resumed, inputs).items():
            resumed_right[row] = label == int(targets[row])
        return {
            "tasks": truth,
            "early": begun.energies,
            "late": late,
            "features": features,
            "first_scores": first_scores,
            "second_scores": second_scores,
            "right": right,
            "resumed_right": resumed_right,
        }

    def _heads(
        self, passes: Sequence[SecondPass], inputs: Tensor | Packed
    ) -> dict[int, list[tuple[int, int, Tensor]]]:
        """(task, label, head scores) of the second passes of every row."""
        embeddings = self.engine._second_passes.run(passes, inputs)
        heads = Heads(self.loaded.heads)
        results = heads.results(heads.ask(passes, embeddings))
        return {
            row: [(one.task, int(one.logits.argmax()), torch.tensor(one.head_scores)) for one in own]
            for row, own in results.items()
        }


def suites_of(folder: Path, only: Sequence[str] | None) -> list[Suite]:
    """Opens the suites in a folder: those that are named, or all that have a store, by name."""
    names = only or sorted(path.parent.parent.name for path in folder.glob("*/store/manifest.json"))
    return [Suite.open(folder / name) for name in names]
