"""What text-embeddings-inference's clients ask a server before they send it anything: sizes and labels."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from mass_serve import __version__
from mass_serve.engine import Question, ServingEngine
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.server.errors import NotFoundError
from mass_serve.server.serving.named_tasks import with_known_tasks
from mass_serve.server.serving.token_tasks import asks_of_tokens
from mass_serve.server.settings import Settings


class Labels(BaseModel):
    """The labels of a classifier, both ways."""

    id2label: dict[str, str] = Field(description="by their place in the list of all, from 0")
    label2id: dict[str, int]


class ModelType(BaseModel):
    """What kind of model answers: here always a classifier."""

    classifier: Labels


class ServerInfo(BaseModel):
    """The server, and the model that is asked about, in the words of text-embeddings-inference."""

    model_config = ConfigDict(protected_namespaces=())  # or names that begin with model_ are warned of

    model_id: str = Field(description="the task, or the group of tasks; auto where any of them may answer")
    model_sha: str = Field(description="the revision of the task, or else of the store")
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int = Field(description="open connections")
    max_input_length: int = Field(description="tokens of a text that are read")
    max_batch_tokens: int
    max_batch_requests: int | None = Field(description="null: a batch is bounded by its tokens")
    max_client_batch_size: int = Field(description="texts of a request")
    auto_truncate: bool = Field(description="a text that is too long is cut where nothing else is asked")
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


def server_info(task: str, engine: ServingEngine, settings: Settings) -> ServerInfo:
    """Returns what is known of a task, of a group of tasks, or of all that texts are routed among.

    Raises NotFoundError for a name of nothing that is served and for a store of images, and BadRequestError
    for a task that classifies tokens.
    """
    if engine.tokenizer is None:
        raise NotFoundError("This store reads images, and /info is about models of texts; GET /v1/tasks.")
    question = with_known_tasks(Question(None if task == AUTO else (task,)), engine)
    asks_of_tokens(question, engine, tells_entities=False)
    routed = [name for name, one in engine.tasks.items() if not one.head.each_token]
    asked = [engine.tasks[name] for name in question.tasks or routed]
    labels = list(dict.fromkeys(label for one in asked for label in one.labels))
    return ServerInfo(
        model_id=task,
        model_sha=engine.tasks[task].revision if task in engine.tasks else engine.store_revision,
        model_dtype=settings.engine_options.chosen_dtype,
        model_type=ModelType(classifier=_labels(labels)),
        max_concurrent_requests=settings.max_connections,
        max_input_length=engine.tokenizer.max_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        max_batch_requests=None,
        max_client_batch_size=settings.max_images_per_request,
        auto_truncate=True,
        tokenization_workers=settings.decode_workers,
        version=__version__,
        sha=None,
        docker_label=None,
    )


def _labels(labels: list[str]) -> Labels:
    return Labels(
        id2label={str(place): label for place, label in enumerate(labels)},
        label2id={label: place for place, label in enumerate(labels)},
    )
