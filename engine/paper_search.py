"""The search for tasks of MASS as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mass_serve.backbone import Batch, Feature, Passes, Probe
from mass_serve.engine.loaded_store import LoadedStore
from mass_serve.engine.search_result import SearchResult
from mass_serve.engine.second_passes import SecondPass
from mass_serve.engine.stages import StageClock
from mass_serve.kernels.transfers import downloaded
from mass_serve.router import ModeName, Prior, SubspaceRouter, explained_share

# Counted, not measured, in multiply-accumulates of a block's twelve D x D products for every token.
# Self-attention's share of them: four of the twelve.
ATTENTION_SHARE = 1 / 3


class PaperSearch:
    """MASS as published (arXiv:2504.05342): one feature, residuals, an expert set."""

    def __init__(self, loaded: LoadedStore, passes: Passes) -> None:
        self._passes = passes
        router = loaded.router
        self._router = SubspaceRouter(
            loaded.residual_blocks,
            temperature=router.temperature,
            threshold=router.threshold,
            top_k=router.top_k,
        )
        self._probe = Probe(feature=Feature(router.layer, router.token))
        self._cost = (router.layer + ATTENTION_SHARE) / loaded.architecture.depth + 1

    @property
    def nbytes(self) -> int:
        return self._router.nbytes

    def search(
        self,
        samples: Sequence[int],
        inputs: Batch,
        candidates: Tensor,
        prior: Prior | None,
        modes: Sequence[ModeName],  # noqa: ARG002 - there is none but the paper's
        clock: StageClock,
    ) -> list[SearchResult]:
        with clock.stage("first_pass"):
            features = self._features(inputs)
        with clock.stage("route"):
            residuals, features = downloaded(self._router.residuals(features), features)
            coefficients = self._router.coefficients(residuals, candidates, prior)
            expert_sets = self._router.expert_sets(coefficients)
            explained = explained_share(features, residuals)
        of_samples = zip(samples, expert_sets, coefficients, residuals, explained, strict=True)
        return [self._result(*of_sample) for of_sample in of_samples]

    def warm_up(self, inputs: Batch) -> Mapping[int, Batch]:
        self._router.residuals(self._features(inputs))
        return {}

    def _features(self, inputs: Batch) -> Tensor:
        return self._passes.first(inputs, stop="feature", probe=self._probe).feature

    def _result(
        self,
        sample: int,
        expert_set: tuple[int, ...],
        coefficients: Tensor,
        residuals: Tensor,
        explained: Tensor,
    ) -> SearchResult:
        """The result for one sample; coefficients, residuals and explained shares are [T]."""
        own = {task: float(coefficients[task]) for task in expert_set}
        return SearchResult(
            (SecondPass(sample, expert_set),),
            own,
            residuals,
            {task: float(explained[task]) for task in expert_set},
            is_fallback=max(own.values()) <= self._router.threshold,
            passes=self._cost,
        )
