"""What `mass_serve.engine` has for other folders."""

from mass_serve.engine.answers import (
    Alternative,
    AnyAnswer,
    BatchReport,
    Classification,
    Embedding,
    TaskAnswer,
    TokenClassification,
)
from mass_serve.engine.cached_memory import release_cached_memory
from mass_serve.engine.choices import Aggregation, AnswerKind
from mass_serve.engine.engine import Engine
from mass_serve.engine.entities import Entity
from mass_serve.engine.flips import Flip, flip
from mass_serve.engine.kept_answers import answer_nbytes, kept
from mass_serve.engine.named_tasks import UnknownTaskError
from mass_serve.engine.options import EngineOptions
from mass_serve.engine.priors import Priors
from mass_serve.engine.protocol import DeviceLostError, EngineSource, ServingEngine
from mass_serve.engine.queries import AnyQuery, Pool, Query, TextQuery, unsplit
from mass_serve.engine.questions import AnyQuestion, EmbeddingQuestion, PreparedInput, Question
from mass_serve.engine.set_cache import FORMS
from mass_serve.engine.source import StoreSource
from mass_serve.router import PAPER, ModeName, StreamEvidence

__all__ = [
    "FORMS",
    "PAPER",
    "Aggregation",
    "Alternative",
    "AnswerKind",
    "AnyAnswer",
    "AnyQuery",
    "AnyQuestion",
    "BatchReport",
    "Classification",
    "DeviceLostError",
    "Embedding",
    "EmbeddingQuestion",
    "Engine",
    "EngineOptions",
    "EngineSource",
    "Entity",
    "Flip",
    "ModeName",
    "Pool",
    "PreparedInput",
    "Priors",
    "Query",
    "Question",
    "ServingEngine",
    "StoreSource",
    "StreamEvidence",
    "TaskAnswer",
    "TextQuery",
    "TokenClassification",
    "UnknownTaskError",
    "answer_nbytes",
    "flip",
    "kept",
    "release_cached_memory",
    "unsplit",
]
