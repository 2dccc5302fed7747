"""What a search for an input's tasks finds: second passes to run, and what is known so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mass_serve.engine.heads import HeadResult
from mass_serve.engine.options import EmbeddingPooling
from mass_serve.engine.second_passes import SecondPass
from mass_serve.router import Evidence, after_second_passes


@dataclass(frozen=True)
class SearchResult:
    """The outcome of the search for one sample's tasks: second passes to run, and what is known so far."""

    second_passes: tuple[SecondPass, ...]
    coefficients: Mapping[int, float]  # of every task in a second pass
    residuals: Tensor | None = None  # [T] float32, of every task; None where they were not needed
    # How much the sample is like the images of each task that it is tried with, 0 to 1; empty where a task
    # was named.
    likeness: Mapping[int, float] = field(default_factory=dict)
    # The cosine of the first pass's embedding and each such task's nearest class vector; empty where there
    # was no such embedding.
    first_cosines: Mapping[int, float] = field(default_factory=dict)
    is_fallback: bool = False  # no task was above the threshold: it got the likeliest one
    passes: float = 1.0  # through the encoder, the first and the second together
    evidence: Evidence | None = None  # of this sample; None of the paper's router, and where a task was named
    # Of its pool (`router.parts`): samples of one pool and part have one task. None: the sample is by itself.
    part: int | None = None

    @classmethod
    def named(cls, sample: int, task: int, *, each_token: bool = False) -> SearchResult:
        """The result where the caller left one task to choose from."""
        return cls((SecondPass(sample, (task,), each_token=each_token),), {task: 1.0})

    @classmethod
    def embedded(cls, sample: int, task: int | None, pooling: EmbeddingPooling) -> SearchResult:
        """The result where an embedding is wanted: by a task's encoder or, with None, the pretrained one."""
        expert_set = () if task is None else (task,)
        return cls((SecondPass(sample, expert_set, each_token=pooling == "mean"),), {})

    @property
    def expert_set(self) -> tuple[int, ...]:
        """Every task that the sample is tried with, ascending."""
        return tuple(sorted(self.coefficients))


def final_coefficients(
    part: Sequence[SearchResult], results: Sequence[Sequence[HeadResult]]
) -> Mapping[int, float]:
    """The coefficients of samples that are of one task, given what the heads say of their second passes."""
    if len(part[0].second_passes) == 1:
        return part[0].coefficients
    evidence = [one.evidence for one in part if one.evidence is not None]
    return after_second_passes(evidence, [{one.task: one.head_scores for one in own} for own in results])
