"""Which evidence tells the task of a text: words, early energies, heads, residuals of every layer, sums.

    python -m benchmarks.text_routing STORE DATA --json routing.json

DATA has the forms of `mass-serve eval`. Printed is how often the task with the most evidence is the text's,
averaged over tasks. Residuals are the paper's, on its merged base and on the pretrained weights;
sums have the latter.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.backbone import Feature, Passes, Probe, WordEmbedding, passes_for, weight_of
from mass_serve.backbone.architecture import Token
from mass_serve.backbone.packed import Batch
from mass_serve.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loaded_store import LoadedStore, early_linears
from mass_serve.engine.loading import load_store
from mass_serve.engine.options import GIB
from mass_serve.evaluation.data import input_batches
from mass_serve.evaluation.inputs import InputFiles, Item, files_of
from mass_serve.router import TaskSubspaces
from mass_serve.router.evidence import LATE_KINDS
from mass_serve.router.head_scores import nearness
from mass_serve.router.selection import standardised

WORDS, EARLY, HEADS = "words", "early energies", "heads' cosines"
PAPER_PASS, OWN_PASS, SUM = "residual, merged base", "residual, pretrained", "early energies + residual"


@dataclass(frozen=True)
class Row:
    """One kind of evidence, and how often it has the right task first."""

    evidence: str
    layer: int | None  # of the feature, from 0
    token: str | None
    right: float  # averaged over tasks
    tasks: dict[str, float]


@dataclass(frozen=True)
class Texts:
    """All labelled texts of a store's tasks in batches, and the number of each one's task [N]."""

    batches: list[Batch]
    tasks: Tensor
    names: list[str]

    def row(self, evidence: str, scores: Tensor, layer: int | None = None, token: str | None = None) -> Row:
        """How often the largest of scores [N, T] is that of the text's own task."""
        right = scores.argmax(1) == self.tasks
        of_tasks = {
            name: float(right[self.tasks == number].float().mean())
            for number, name in enumerate(self.names)
            if bool((self.tasks == number).any())
        }
        return Row(evidence, layer, token, sum(of_tasks.values()) / len(of_tasks), of_tasks)


def measure(store: str, root: Path) -> Iterator[Row]:
    """Yields a row for each kind of evidence by itself, and for each feature in the sum."""
    loaded = load_store(store, torch.device("cpu"), torch.float32, "balanced")
    engine = Engine(loaded, Execution.LOW_RANK, GIB)
    files = files_of(engine)
    items = [files.below(root, f"{name}.jsonl") for name in engine.tasks]
    texts = Texts(
        list(_batches(files, loaded, root, [item for of_task in items for item in of_task])),
        torch.repeat_interleave(torch.tensor([len(of_task) for of_task in items])),
        list(engine.tasks),
    )
    kinds = _kinds(engine, files, root, [item for of_task in items for item in of_task])
    every = torch.ones(len(kinds), len(texts.names), dtype=torch.bool)
    pieces = {WORDS: _words(loaded, texts), EARLY: kinds[:, :-LATE_KINDS].mean(1), HEADS: kinds[:, -1]}
    for name, shares in pieces.items():
        yield texts.row(name, shares)
    for place, linear in enumerate(early_linears(loaded.architecture)):
        yield texts.row(f"early energy at {linear}", kinds[:, place])
    units = {name: standardised(nearness(shares), every) for name, shares in pieces.items()}
    for name in (WORDS, HEADS):
        yield texts.row(f"{EARLY} + {name}", units[EARLY] + units[name])
    merged = loaded.bank.merged_parameters(list(loaded.pretrained), range(loaded.bank.num_tasks))
    on_merged, own = (passes_for(loaded.bank, weights, 1) for weights in (merged, loaded.pretrained))
    papers, residuals = _residuals(loaded, on_merged, texts), _residuals(loaded, own, texts)
    for (layer, token), of_place in residuals.items():
        yield texts.row(PAPER_PASS, -papers[layer, token], layer, token)
        yield texts.row(OWN_PASS, -of_place, layer, token)
        both = units[EARLY] + standardised(-of_place, every)
        yield texts.row(SUM, both, layer, token)
        yield texts.row(f"{SUM} + {WORDS}", both + units[WORDS], layer, token)
        yield texts.row(f"{SUM} + {HEADS}", both + units[HEADS], layer, token)


def _words(loaded: LoadedStore, texts: Texts) -> Tensor:
    """How much of the change of a text's words is each task's, [N, T], the marks around the text left out.

    A row of the table of words that no text of a task had stays as it was. The energy of a row of a task's
    change counts in units of its mean over the rows: how far a task went on the whole says nothing.
    """
    embedding = loaded.architecture.embedding
    assert isinstance(embedding, WordEmbedding)  # of a store of texts
    changes = loaded.bank.singular_vectors(weight_of(embedding.words), loaded.routed)
    energies = torch.stack([(one.u.float() * one.s.float()).square().sum(1) for one in changes], dim=1)
    unit = energies / energies.mean(0)
    shares = unit / unit.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    words = (sample[:, 0] for batch in texts.batches for sample in batch)
    return torch.stack([shares[own[1:-1] if len(own) > 2 else own].mean(0) for own in words])


def _batches(files: InputFiles, loaded: LoadedStore, root: Path, items: Sequence[Item]) -> Iterator[Batch]:
    like = loaded.bank.like
    for inputs in input_batches(files, root, items):
        yield files.batch(loaded.architecture, inputs, like)


def _kinds(engine: Engine, files: InputFiles, root: Path, items: Sequence[Item]) -> Tensor:
    """The evidence [N, K, T] of every text."""
    found = []
    for inputs in input_batches(files, root, items):
        for answer in engine.classify_batch([files.query(one) for one in inputs]).all_answers():
            assert answer.evidence is not None  # in this mode every text has it
            found.append(answer.evidence.kinds)
    return torch.stack(found)


@torch.inference_mode()
def _residuals(loaded: LoadedStore, passes: Passes, texts: Texts) -> dict[tuple[int, Token], Tensor]:
    """The residuals [N, T] of every text's features, by layer and token."""
    found: dict[tuple[int, Token], Tensor] = {}
    entering = texts.batches
    for layer in range(loaded.architecture.depth):
        parameter = weight_of(loaded.architecture.residual_linear(layer))
        subspaces = TaskSubspaces(loaded.bank.leading_rows(parameter, loaded.routed))
        for token in loaded.architecture.tokens:
            probe = Probe(feature=Feature(layer, token))
            runs = [passes.first(batch, layer or None, layer + 1, probe) for batch in entering]
            found[layer, token] = torch.cat([subspaces.residuals(one.feature) for one in runs])
        entering = [one.entering for one in runs]
    return found


def main() -> None:
    """Prints a line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    rows = []
    for row in measure(options.store, options.data):
        where = "" if row.layer is None else f", layer {row.layer}, {row.token}"
        print(f"{row.evidence}{where}: {row.right:.3f}", flush=True)
        rows.append(asdict(row))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
