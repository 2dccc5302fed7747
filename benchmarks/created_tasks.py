"""What `mass-serve task create` makes of 16 images a class, for each task of a suite as if it were a new one.

    python -m benchmarks.created_tasks SUITES --only demo --records DIR --json FIGURES

Of the suite's store each task in turn is taken out, and created again from the labelled images of `few`. It
answers the images of `further`, with the task named; beside it stands what is usual, a linear probe:
multinomial logistic regression of the pretrained encoder's standardised embeddings, its L2 penalty chosen on
the same folds. Then the images of `evaluation` of all tasks are routed: how many of its own the new task
gets, and how many of the others' it takes away from those that got them before; and once more, with the store
calibrated by the labelled images of `tuning`. DIR keeps the stores; docs/accuracy.md shows FIGURES, which are
`benchmarks/results/created_tasks.json`.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.by_suite import asked_suites
from mass_serve.engine import Engine
from mass_serve.engine.questions import EmbeddingQuestion
from mass_serve.evaluation.calibrate import calibrate
from mass_serve.evaluation.creation import Created, create
from mass_serve.evaluation.creation.held_out import folds_of
from mass_serve.evaluation.creation.labelled import LabelledImages
from mass_serve.evaluation.inputs import files_of
from mass_serve.model_store.progress import silent
from mass_serve.model_store.revisions import remove_task
from mass_serve.model_store.store import Store

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the probe's squared weights
CREATED = "created"


@dataclass(frozen=True)
class Figures:
    """What became of one task."""

    classes: int
    images: int  # that it was created from
    seconds: float
    bytes: int  # of its files
    combined_of: int  # how many tasks it is a combination of; 0: the pretrained encoder was better
    held_out_plain: float
    held_out_combined: float | None
    answered: int  # images that accuracies are of
    accuracy: float
    linear_probe: float
    routed_own: float  # of its images, those that are routed to it
    routed_others: float  # of the other tasks' images, those that are routed to theirs
    routed_others_before: float  # the same without the new task
    taken: int  # of the others' images, those that the new task gets
    calibrated_own: float  # the same, once `calibrate --labelled` had the images of `tuning`
    calibrated_others: float


def probe_accuracy(known: LabelledImages, own: Tensor, others: Tensor, targets: Tensor) -> float:
    """The accuracy of a linear probe fitted to embeddings own [n, P], on others [m, P] of these classes."""
    mean, deviation = own.mean(0), own.std(0).clamp_min(1e-6)
    own, others = (own - mean) / deviation, (others - mean) / deviation
    folds = folds_of(known.rows_of_classes)

    def right(penalty: float) -> float:
        found = 0.0
        for fold in range(int(folds.max()) + 1):
            out = folds == fold
            weight, bias = _probe(own[~out], known.targets[~out], penalty)
            found += float(((own[out] @ weight.T + bias).argmax(1) == known.targets[out]).sum())
        return found

    weight, bias = _probe(own, known.targets, max(PENALTIES, key=right))
    return float(((others @ weight.T + bias).argmax(1) == targets).double().mean())


def _probe(x: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    classes = int(targets.max()) + 1
    weight, bias = torch.zeros(classes, x.shape[1]).requires_grad_(), torch.zeros(classes).requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, targets) + penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


class Measured:
    """One task of a suite, taken out of its store and created again."""

    def __init__(self, suite: Path, records: Path, task: str) -> None:
        self.suite, self.task, self.folder = suite, task, records / suite.name / task
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(suite / "store", self.folder)
        remove_task(self.folder, task)
        self.before = Engine.load(str(self.folder), dtype="float32")
        self.files = files_of(self.before)

    def figures(self) -> Figures:
        """Creates the task, and measures it."""
        begun = time.monotonic()
        created = create(str(self.folder), CREATED, self.suite / "few" / self.task, torch.device("cpu"))
        seconds = time.monotonic() - begun
        engine = Engine.load(str(self.folder), dtype="float32")
        known = LabelledImages.below(self.suite / "few" / self.task, engine.preprocessing)
        pixels, targets = self._pixels(created)
        answers = engine.classify_batch([self.files.query(one, (CREATED,)) for one in pixels]).all_answers()
        given = torch.tensor([int(answer.logits.argmax()) for answer in answers])
        own = [known.files.read(known.root, item) for item in known.items]
        probed = probe_accuracy(known, self._embeddings(own), self._embeddings(pixels), targets)
        routed, others = self._routed(engine), self._routed(self.before)
        mine = routed.pop(self.task)
        del others[self.task]
        self._calibrate()
        calibrated = self._routed(Engine.load(str(self.folder), dtype="float32"))
        mine_calibrated = calibrated.pop(self.task)
        return Figures(
            classes=len(created.labels),
            images=created.images,
            seconds=round(seconds, 1),
            bytes=_bytes(created.store),
            combined_of=len(created.others),
            held_out_plain=round(created.plain, 4),
            held_out_combined=None if created.combined is None else round(created.combined, 4),
            answered=len(pixels),
            accuracy=round(float((given == targets).double().mean()), 4),
            linear_probe=round(probed, 4),
            routed_own=_share(mine),
            routed_others=_right(routed),
            routed_others_before=_right(others),
            taken=sum(names.count(CREATED) for names in routed.values()),
            calibrated_own=_share(mine_calibrated),
            calibrated_others=_right(calibrated),
        )

    def _calibrate(self) -> None:
        """Calibrates the store by the images of `tuning`, those of the task under its new name."""
        labelled = self.folder.with_name(f"{self.task}-labelled")
        shutil.rmtree(labelled, ignore_errors=True)
        labelled.mkdir()
        for folder in (self.suite / "tuning").iterdir():
            name = CREATED if folder.name == self.task else folder.name
            (labelled / name).symlink_to(folder.resolve())
        calibrate(str(self.folder), labelled, 0.01, torch.device("cpu"), silent, labelled=True)

    def _pixels(self, created: Created) -> tuple[list[Tensor], Tensor]:
        """The images with labels that answers are measured on, and the class of each."""
        pixels, targets = [], []
        for number, label in enumerate(created.labels):
            of_class = self._read(self.suite / "further" / self.task / label)
            pixels += of_class
            targets += [number] * len(of_class)
        return pixels, torch.tensor(targets)

    def _read(self, folder: Path) -> list[Tensor]:
        return [self.files.read(folder, item) for item in self.files.below(folder)]

    def _embeddings(self, pixels: list[Tensor]) -> Tensor:
        """The pretrained encoder's embeddings [n, P] of images."""
        queries = EmbeddingQuestion().queries(pixels, ())
        return torch.stack([one.values for one in self.before.classify_batch(queries).embeddings()])

    def _routed(self, engine: Engine) -> dict[str, list[str]]:
        """The tasks that the images of `evaluation` are routed to, by the task that they are of."""
        found = {}
        for folder in sorted((self.suite / "evaluation").iterdir()):
            queries = [self.files.query(one) for one in self._read(folder)]
            found[folder.name] = [one.task for one in engine.classify_batch(queries).all_answers()]
        return found


def _share(names: list[str]) -> float:
    return round(names.count(CREATED) / len(names), 4)


def _right(routed: dict[str, list[str]]) -> float:
    own = sum(names.count(task) for task, names in routed.items())
    return round(own / sum(map(len, routed.values())), 4)


def _bytes(store: Store) -> int:
    return sum(store.files.size(path) for path in store.task(CREATED).files)


def main() -> None:
    """Prints a line for every task."""
    asked = asked_suites(__doc__, records=True)
    assert asked.records is not None
    for suite in asked.suites:
        tasks = sorted(folder.name for folder in (suite / "few").iterdir())
        found = {}
        for task in tasks:
            found[task] = Measured(suite, asked.records, task).figures()
            one = found[task]
            print(
                f"{suite.name} without {task}: {one.accuracy:.3f}, a linear probe {one.linear_probe:.3f};"
                f" of {one.combined_of} tasks, {one.bytes:,} bytes in {one.seconds:.0f} s;"
                f" routed right {one.routed_own:.3f}, the others {one.routed_others:.3f}"
                f" (before {one.routed_others_before:.3f});"
                f" calibrated {one.calibrated_own:.3f} and {one.calibrated_others:.3f}",
                flush=True,
            )
        asked.record(suite.name, {task: asdict(one) for task, one in found.items()})


if __name__ == "__main__":
    main()
