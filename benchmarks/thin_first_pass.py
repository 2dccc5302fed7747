"""What a first pass of fewer tokens, fewer MLPs or fewer bits costs: accuracy of every suite, and time.

    python -m benchmarks.thin_first_pass SUITES [--only NAME ...] --json FILE

SUITES holds folders as `python -m examples.suites NAME --out SUITES/NAME` makes them, whose stores are taken
as if they had not been calibrated. At most 120 inputs of each task of the `evaluation` part are asked about,
the same of every variant, without their task, in float32. `own MLPs` is `late_mlp_share` of the router. Of
`least alike` and `every second`, tokens are dropped, of texts every second one where the patches of images
are those of a checkerboard. `half resolution`, of images alone, is `benchmarks.half_resolution`. With `int8`
the first pass's linears are quantised, and second passes that resume go on from its tokens; from tokens that
were dropped or halved from the start none resumes. Accuracy is the share of inputs whose task and label are
right, averaged over tasks. Seconds are a thread's, of first passes over the same batches in turn, over those
of all tokens; products are multiply-adds of the blocks, counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.accuracy.measure import variants_of
from benchmarks.by_suite import asked_suites
from benchmarks.dtypes import Said, accuracy
from benchmarks.groups import AT_ONCE, Input, inputs_of
from benchmarks.half_resolution import halved, on_half_grid
from mass_serve.backbone import Batch, Packed, PassResult, passes_for, with_quantised_linears
from mass_serve.backbone.architecture import PatchEmbedding
from mass_serve.backbone.layout import AnyLengths, Choose, EqualLengths
from mass_serve.backbone.packed import lengths_of
from mass_serve.backbone.parts.shared_mlp import least_alike
from mass_serve.engine.evidence_search import EvidenceSearch
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.second_passes import SecondPass, SecondPassRunner
from mass_serve.evaluation.inputs import files_of
from mass_serve.router import ModeName

MODES: tuple[ModeName, ...] = ("exact", "fast")
PLACES = 4


@dataclass(frozen=True)
class Variant:
    """A first pass that computes less."""

    mlp_share: float = 1.0
    choose: Callable[[int], Choose] | None = None  # the tokens that are kept,
    from_the_start: bool = False  # or from where early evidence is judged
    halves: bool = False  # the side of images
    is_int8: bool = False

    @property
    def lets_resume(self) -> bool:
        """Tells whether second passes can begin where early evidence is judged, with all tokens."""
        return not (self.from_the_start or self.halves)


def _every_second(before: int, x: Tensor, *, in_grid: bool) -> tuple[Tensor, Tensor]:
    """The tokens before the patches and every second patch; in a grid those of a checkerboard."""
    patch = torch.arange(x.shape[1] - before)
    side = math.isqrt(len(patch))
    number = patch // side + patch % side if in_grid else patch
    places = torch.cat([torch.arange(before), patch[number % 2 == 0] + before])
    return places.expand(len(x), -1), torch.zeros(x.shape[:2], dtype=torch.int64)


def variants(*, reads_text: bool) -> dict[str, Variant]:
    """All that are measured, by name; the first computes everything."""

    def least(share: float) -> Callable[[int], Choose]:
        return lambda before: partial(least_alike, before, share)

    def every_second(before: int) -> Choose:
        return partial(_every_second, before, in_grid=not reads_text)

    of_images = {} if reads_text else {"half resolution": Variant(halves=True)}
    return {
        "all": Variant(),
        "own MLPs 3/4": Variant(mlp_share=3 / 4),
        "own MLPs 1/2": Variant(mlp_share=1 / 2),
        "own MLPs 1/4": Variant(mlp_share=1 / 4),
        "least alike 3/4": Variant(choose=least(3 / 4)),
        "least alike 1/2": Variant(choose=least(1 / 2)),
        "least alike 1/4": Variant(choose=least(1 / 4)),
        "every second": Variant(choose=every_second),
        "every second, from the start": Variant(choose=every_second, from_the_start=True),
        **of_images,
        "int8": Variant(is_int8=True),
        "int8, own MLPs 1/2": Variant(mlp_share=1 / 2, is_int8=True),
    }


class ThinSearch(EvidenceSearch):
    """The search as it is served, but for what a variant leaves out."""

    def __init__(self, loaded: LoadedStore, variant: Variant) -> None:
        self._variant, self._embedding = variant, loaded.architecture.embedding
        self._before = 1 if loaded.architecture.reads_text else self._embedding.tokens_before_patches
        self._choose = None if variant.choose is None else variant.choose(self._before)
        self.tokens, self.kept, self.seconds = 0, 0, 0.0
        weights = loaded.first_pass
        if variant.halves:
            weights = on_half_grid(weights, self._patches)
        if variant.is_int8:
            weights = with_quantised_linears(weights, loaded.architecture)
        router = loaded.router.model_copy(update={"late_mlp_share": variant.mlp_share})
        super().__init__(replace(loaded, router=router), passes_for(loaded.bank, weights, 1))
        if variant.choose is not None or variant.halves:  # what the store keeps of drawn inputs is of all
            self.router.measure_from(self._measured_energies(loaded))
        if not variant.lets_resume:
            self.resuming = frozenset()
        self.tokens, self.kept, self.seconds = 0, 0, 0.0

    def begin(self, inputs: Batch, candidates: Tensor | None = None) -> PassResult:
        """The first third of a pass."""
        begun = time.process_time()
        if self._variant.lets_resume:
            result = super().begin(inputs, candidates)
        else:
            kept = self._embedded(inputs)
            result = self._passes.first(kept, start=0, stop=self._stop, probe=self._early)
        self.seconds += time.process_time() - begun
        return result

    def end(self, begun: PassResult, candidates: Tensor | None = None) -> PassResult:
        """The rest of it."""
        started = time.process_time()
        if self._variant.lets_resume:
            begun = replace(begun, outputs={**begun.outputs, "tokens": self._thinned(begun.entering)})
        result = super().end(begun, candidates)
        self.seconds += time.process_time() - started
        return result

    @property
    def _patches(self) -> PatchEmbedding:
        assert isinstance(self._embedding, PatchEmbedding)  # of texts nothing is halved
        return self._embedding

    def _embedded(self, inputs: Batch) -> Batch:
        """The tokens of inputs that enter the first block."""
        if not self._variant.halves:
            return self._thinned(self._passes.first(inputs, stop=0).entering)
        assert isinstance(inputs, Tensor)
        found = self._passes.first(halved(inputs, self._patches), stop=0).entering
        self.tokens += sum(lengths_of(inputs)) + self._before * len(inputs)
        self.kept += sum(lengths_of(found))
        return found

    def _thinned(self, batch: Batch) -> Batch:
        self.tokens += sum(lengths_of(batch))
        kept = batch if self._choose is None else _kept(batch, self._choose)
        self.kept += sum(lengths_of(kept))
        return kept

    @property
    def products(self) -> float:
        """The multiply-adds of the blocks, over those of all tokens and MLPs."""
        share = self.kept / self.tokens
        return (
            self._early_share + share * (self._whole_share - self._early_share)
            if self._variant.lets_resume
            else share
        )


def _kept(batch: Batch, choose: Choose) -> Batch:
    if isinstance(batch, Packed):
        chosen = AnyLengths(batch).chosen(choose, batch.rows.unsqueeze(1))
        return Packed(chosen.taken(batch.rows.unsqueeze(1))[:, 0], chosen.lengths)
    return EqualLengths().chosen(choose, batch).taken(batch)


@dataclass(frozen=True)
class Remembered(SecondPassRunner):
    """Runs the second passes of one batch once: equal ones have equal bits, whatever the variant."""

    of_int8: bool = False  # the tokens that some resume with, which are then others
    embeddings: dict[tuple[int, tuple[int, ...], bool, bool], Tensor] = field(default_factory=dict)

    def run(self, second_passes: Sequence[SecondPass], inputs: Batch) -> Tensor:
        """Their embeddings [n, P]."""
        keys = [
            (one.sample, one.expert_set, one.resumes, one.resumes and self.of_int8) for one in second_passes
        ]
        missing = {
            key: one for key, one in zip(keys, second_passes, strict=True) if key not in self.embeddings
        }
        if missing:
            rows = super().run(list(missing.values()), inputs)
            self.embeddings.update(zip(missing, rows, strict=True))
        return torch.stack([self.embeddings[key] for key in keys])


def measured(suite: Path) -> dict[str, Any]:
    """The figures of one suite by variant."""
    engines = {mode: variants_of(suite / "store", calibrated=False).engine(mode) for mode in MODES}
    first = engines[MODES[0]]
    runner = first._second_passes
    inputs = inputs_of(first, suite / "evaluation")
    tried = variants(reads_text=first.architecture.reads_text)
    searches = {
        name: {mode: ThinSearch(engine._loaded, variant) for mode, engine in engines.items()}
        for name, variant in tried.items()
    }
    said: dict[str, dict[ModeName, Said]] = {name: {mode: [] for mode in MODES} for name in tried}
    for some in _batches(inputs):
        remembered = Remembered(**vars(runner))
        queries = [files_of(first).query(one.prepared, None) for one in some]
        for name, variant in tried.items():
            for mode, engine in engines.items():
                engine._search = searches[name][mode]
                engine._second_passes = replace(remembered, of_int8=variant.is_int8)
                answers = engine.classify_batch(queries).all_answers()
                said[name][mode] += [(answer.task, int(answer.logits.argmax())) for answer in answers]
    return {
        "inputs": len(inputs),
        "variants": {name: _figures(name, searches, said, inputs) for name in tried},
    }


def _batches(inputs: Sequence[Input]) -> Iterator[Sequence[Input]]:
    return (inputs[at : at + AT_ONCE] for at in range(0, len(inputs), AT_ONCE))


def _figures(
    name: str,
    searches: Mapping[str, Mapping[ModeName, ThinSearch]],
    said: Mapping[str, Mapping[ModeName, Said]],
    inputs: Sequence[Input],
) -> dict[str, float]:
    whole = MODES[0]  # the mode in which every input has a whole first pass
    own = searches[name][whole]
    figures: dict[str, float] = {mode: accuracy(said[name][mode], inputs) for mode in MODES}
    figures["products"] = own.products
    figures["seconds"] = own.seconds / searches["all"][whole].seconds
    return {key: round(value, PLACES) for key, value in figures.items()}


def main() -> None:
    """Prints a line for each suite and variant."""
    torch.set_num_threads(1)
    asked = asked_suites(__doc__)
    for folder in asked.suites:
        figures = measured(folder)
        for name, own in figures["variants"].items():
            print(f"{folder.name}, {name}: {own}", flush=True)
        asked.record(folder.name, figures)


if __name__ == "__main__":
    main()
