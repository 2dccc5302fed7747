"""What routing could know at best: the router beside a classifier that was trained with labels.

    python -m benchmarks.separability STORE DATA [--pairs N] [--json FILE]

DATA is what `mass-serve eval` takes; tasks that it lacks are no candidates. For all tasks, and for the
pairs that `exact` confuses most, three balanced accuracies of telling an image's task: of `balanced` and of
`exact`, without data or labels; and of logistic regression on the same evidence of the first pass, trained
with labels on four fifths of these very images and measured on the fifth, in turn. Where that is no better,
the encoder does not see the difference. A calibrated store is measured as it is served.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mass_serve.engine import Engine
from mass_serve.evaluation.data import input_batches
from mass_serve.evaluation.inputs import Item, files_of
from mass_serve.router.head_scores import nearness

FOLDS = 5
PENALTY = 0.1  # the inverse of its weight
MODES = ("balanced", "exact")


@dataclass(frozen=True)
class Separability:
    """Balanced accuracies of telling the tasks of an image apart."""

    tasks: list[str]
    images: int
    routed: dict[str, float]  # by mode
    trained: float


@dataclass(frozen=True)
class Routed:
    """Holds what one mode made of the inputs."""

    answers: list[str]
    evidence: Tensor  # [N, K, T]


def route(engine: Engine, root: Path, items: Sequence[Item], candidates: tuple[str, ...]) -> Routed:
    """The task that answers each input, of the candidates."""
    answers: list[str] = []
    evidence: list[Tensor] = []
    files = files_of(engine)
    for inputs in input_batches(files, root, items):
        for answer in engine.classify_batch([files.query(one, candidates) for one in inputs]).all_answers():
            assert answer.evidence is not None
            answers.append(answer.task)
            evidence.append(answer.evidence.kinds)
    return Routed(answers, torch.stack(evidence))


def trained(evidence: Tensor, tasks: npt.NDArray[np.str_]) -> float:
    """The balanced accuracy of logistic regression on evidence [N, K, T] for the task of each of N images."""
    features = nearness(evidence).flatten(1).double().numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=2_000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return balanced(tasks, cross_val_predict(model, features, tasks, cv=folds))


def balanced(tasks: npt.NDArray[np.str_], answers: Sequence[str]) -> float:
    """How often the answers are right, averaged over the tasks that there are images of."""
    return float(recall_score(tasks, answers, labels=np.unique(tasks), average="macro"))


def measure(store: str, root: Path, pairs: int) -> Iterator[Separability]:
    """Yields figures of all tasks first, then of the pairs that `exact` confuses most."""
    engines = {mode: Engine.load(store, dtype="float32", mode=mode) for mode in MODES}
    files = files_of(engines["exact"])
    found = {place.stem: files.below(root, place.name) for place in root.iterdir()}
    names = tuple(name for name in engines["exact"].tasks if found.get(name))
    items = [item for name in names for item in found[name]]
    tasks = np.repeat(names, [len(found[name]) for name in names])
    whole = {mode: route(engine, root, items, names) for mode, engine in engines.items()}
    evidence = whole["exact"].evidence
    yield _separability(names, tasks, whole, evidence)
    confused = Counter(
        tuple(sorted(pair)) for pair in zip(tasks, whole["exact"].answers, strict=True) if pair[0] != pair[1]
    )
    for pair, _ in confused.most_common(pairs):
        rows = np.isin(tasks, pair).nonzero()[0]
        own = [items[row] for row in rows]
        routed = {mode: route(engine, root, own, pair) for mode, engine in engines.items()}
        yield _separability(pair, tasks[rows], routed, evidence[rows])


def _separability(
    names: Sequence[str], tasks: npt.NDArray[np.str_], routed: dict[str, Routed], evidence: Tensor
) -> Separability:
    scores = {mode: balanced(tasks, one.answers) for mode, one in routed.items()}
    return Separability(list(names), len(tasks), scores, trained(evidence, tasks))


def main() -> None:
    """Prints a line for all tasks and one for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=5, help="how many of the most confused pairs")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    found = []
    for one in measure(options.store, options.data, options.pairs):
        found.append(one)
        what = " and ".join(one.tasks) if len(one.tasks) == 2 else f"all {len(one.tasks)} tasks"
        modes = ", ".join(f"{mode} {score:.3f}" for mode, score in one.routed.items())
        print(f"{what}: {one.images:,} images, {modes}, trained with labels {one.trained:.3f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
