"""Creates a task of a store from labelled images: a head, and what other tasks' changes add to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mass_serve.backbone import DenseWeights, run
from mass_serve.engine.known_mode import known_mode
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.loading import load_store
from mass_serve.engine.measuring import unknown_measures
from mass_serve.engine.preprocessing import ImagePreprocessor
from mass_serve.evaluation.creation.discriminant import ClassMeans
from mass_serve.evaluation.creation.held_out import HeldOut, folds_of, held_out
from mass_serve.evaluation.creation.labelled import LabelledImages, Pixels
from mass_serve.evaluation.creation.scaling import LEAST_IMAGES, Changes, learned_coefficients
from mass_serve.evaluation.errors import EvaluationDataError
from mass_serve.model_store.creating import NewTask, combined_ranks, create_task
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.revisions import refuse_task
from mass_serve.model_store.store import Store
from mass_serve.router import PAPER


@dataclass(frozen=True)
class Created:
    """What was measured of a new task, and the store that has it."""

    store: Store
    labels: tuple[str, ...]
    images: int
    chance: float  # the share of the largest class
    plain: float  # accuracy on held-out folds, by the pretrained encoder
    combined: float | None  # by a combination of other tasks; None where none was tried
    untried: str | None  # why not
    others: tuple[str, ...]  # of whom a combination was kept; none: the pretrained encoder was


@dataclass(frozen=True)
class Learner:
    """Learns from labelled images on one store."""

    loaded: LoadedStore
    images: LabelledImages
    pixels: Pixels
    others: tuple[str, ...]
    changes: Changes | None  # that are combined; None: no combination is tried
    untried: str | None  # why not
    progress: Progress

    def embeddings(self, parameters: Mapping[str, Tensor], stage: str) -> Tensor:
        """The embeddings [n, P] of all images by one encoder, in float32 on the CPU."""
        found, weights, done = [], DenseWeights(parameters), 0
        with torch.no_grad():  # and not in inference mode, whose tensors no gradient may pass
            for rows in self.pixels.batches():
                self.progress(stage, done, len(self.images.items))
                batch = self.pixels.batch(rows)
                found.append(run(self.loaded.architecture, weights, batch).embedding.float().cpu())
                done += len(rows)
        self.progress(stage, done, len(self.images.items))
        return torch.cat(found)

    def coefficients(self, known: Tensor, stage: str) -> Tensor:
        """The coefficients [S, N] learned from the images that the mask [n] has."""
        assert self.changes is not None
        rows = [of_class[known[of_class]] for of_class in self.images.rows_of_classes]
        return learned_coefficients(self.changes, self.pixels, rows, self.progress, f"learning {stage}")

    def combined(self, known: Tensor, stage: str) -> Tensor:
        """The embeddings of all images with a combination that was learned from those of the mask."""
        assert self.changes is not None
        return self.embeddings(
            self.changes.combined(self.coefficients(known, stage)), f"embedding images, {stage}"
        )


def create(
    url: str,
    name: str,
    root: Path,
    device: torch.device,
    progress: Progress = silent,
    trusted_keys: Path | None = None,
    *,
    replace: bool = False,
    head_alone: bool = False,
) -> Created:
    """Adds a task to a store, learned from the images of `root/<class>/`.

    Of a head on the pretrained encoder, and one on a combination of other tasks' changes, the better one is
    kept, by images that each was not learned from; with `head_alone` the first is all that is tried.

    Raises StoreError, and EvaluationDataError for images that are too few, cannot be read, or are no better
    told apart than by chance.
    """
    refuse_task(url, name, replace)
    store = Store.open(url, trusted_keys)
    learner = _learner(store, name, root, device, progress, trusted_keys, head_alone=head_alone)
    images = learner.images
    folds, targets = folds_of(images.rows_of_classes), images.targets
    frozen = learner.embeddings(learner.loaded.pretrained, "embedding images")
    if not bool(frozen.isfinite().all()):
        raise EvaluationDataError(f"the encoder of {url} gives numbers that are not finite for {root}")
    plain = held_out(lambda _known: frozen, targets, folds)
    combined: HeldOut | None = None
    if learner.changes is not None:
        folds_seen = iter(range(1, int(folds.max()) + 2))
        combined = held_out(
            lambda known: learner.combined(known, f"fold {next(folds_seen)} of {int(folds.max()) + 1}"),
            targets,
            folds,
        )
    chance = float(targets.bincount().max()) / len(targets)
    best = plain if combined is None or combined.accuracy <= plain.accuracy else combined
    _refuse_chance(best.accuracy, chance, images)
    task = _new_task(learner, name, best, frozen, is_combined=best is combined)
    written = create_task(store, task, replace, unknown_measures, progress)
    return Created(
        written,
        images.labels,
        len(images.items),
        chance,
        plain.accuracy,
        None if combined is None else combined.accuracy,
        learner.untried,
        task.others,
    )


def _learner(
    store: Store,
    name: str,
    root: Path,
    device: torch.device,
    progress: Progress,
    trusted_keys: Path | None,
    *,
    head_alone: bool,
) -> Learner:
    url, router = store.files.url, store.manifest.router
    if store.manifest.backbone.reads_text:
        raise EvaluationDataError(f"{url} reads texts, and tasks are created from images alone")
    if known_mode(router) == PAPER or router.first_pass == "merged_base":
        raise EvaluationDataError(
            f"the router of {url} tells tasks by directions of their own in a merged base, and a created task"
            " has none: build the store in another mode, with a first pass on the pretrained weights"
        )
    loaded = load_store(url, device, torch.float32, trusted_keys=trusted_keys, calibrated=False)
    if loaded.store_revision != store.manifest.store_revision:
        raise StoreError(f"{url} was changed meanwhile: create the task again")
    assert isinstance(loaded.preprocessing, ImagePreprocessor)
    images = LabelledImages.below(root, loaded.preprocessing)
    like = loaded.bank.like
    pixels = Pixels(images, loaded.architecture, like)
    others = {
        head.entry.name: place
        for place, head in enumerate(loaded.heads)
        if head.entry.combination is None and head.entry.name != name
    }
    untried = "it was not asked for" if head_alone else _why_untried(loaded, images, others)
    changes = None
    if untried is None:
        changes = Changes.of(loaded, list(others.values()), combined_ranks(store, tuple(others)))
    return Learner(loaded, images, pixels, tuple(others), changes, untried, progress)


def _why_untried(loaded: LoadedStore, images: LabelledImages, others: Mapping[str, int]) -> str | None:
    """Says why no combination can be learned; None where one can."""
    if not others:
        return "the store has no other task"
    if int(images.targets.bincount().min()) < LEAST_IMAGES:
        return f"a class has fewer than {LEAST_IMAGES} images"
    if loaded.architecture.block.is_gated:
        return "the encoder's MLPs are gated"
    return None


def _new_task(learner: Learner, name: str, best: HeldOut, frozen: Tensor, *, is_combined: bool) -> NewTask:
    """The task as all images tell it, in the way that was the better one on held-out folds."""
    images = learner.images
    others, coefficients, embeddings = tuple[str, ...](), torch.empty(0, 0), frozen
    if is_combined:
        assert learner.changes is not None
        everything = torch.ones(len(images.targets), dtype=torch.bool)
        others, coefficients = learner.others, learner.coefficients(everything, "from all images")
        embeddings = learner.embeddings(learner.changes.combined(coefficients), "embedding images")
    means, first_pass = (
        ClassMeans.of(one, images.targets, len(images.labels)) for one in (embeddings, frozen)
    )
    head = means.tensors(best.shrinkage, best.judged.scale, first_pass)
    return NewTask(name, images.labels, head, others, coefficients, round(best.accuracy, 4))


def _refuse_chance(accuracy: float, chance: float, images: LabelledImages) -> None:
    """Raises EvaluationDataError where an accuracy is not a standard error above that of guessing."""
    count = len(images.items)
    if accuracy <= chance + math.sqrt(chance * (1 - chance) / count):
        raise EvaluationDataError(
            f"the classes of {images.root} cannot be told apart: of {count:,} images that were held out"
            f" {accuracy:.1%} were right, and guessing has {chance:.1%}. Nothing was written. Give more"
            " images of each class, or check that the folders hold what they are named after"
        )
