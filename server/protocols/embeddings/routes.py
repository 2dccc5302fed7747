"""POST /v1/embeddings, as OpenAI's, and /embed, as text-embeddings-inference's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from mass_serve.engine import EmbeddingQuestion, Question, ServingEngine
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.model_store.format.groups import GROUP_MARK
from mass_serve.server.protocols.embeddings.answers import embed_answer, embeddings_answer
from mass_serve.server.protocols.embeddings.embed_requests import (
    BASE,
    FRAME_OF_EMBED,
    FRAME_OF_EMBEDDINGS,
    EmbeddingsRequest,
    check_dimensions,
    embed_of_frame,
    embeddings_of_frame,
    read_embed,
    read_embeddings,
)
from mass_serve.server.protocols.embeddings.messages import EmbedBody, EmbeddingsAnswer, EmbeddingsBody
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.reading import limits_of, request_of
from mass_serve.server.protocols.vectors import BYTES_A_VALUE
from mass_serve.server.serving.named_tasks import with_known_tasks
from mass_serve.server.serving.request_context import Embeddings, RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.direct_routes import DirectRoute
from mass_serve.server.web.openapi import described_body, schema_of
from mass_serve.server.web.receiving import (
    FOR_INFERENCE,
    IF_THERE_IS_ROOM,
    CurrentContext,
    CurrentService,
    answered_in_json,
)
from mass_serve.server.web.responses import error_responses

router = APIRouter(tags=["embeddings"], dependencies=FOR_INFERENCE, route_class=DirectRoute)

BODIES = (EmbeddingsBody, EmbedBody)
RESPONSES = error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504)


@dataclass(frozen=True)
class Form:
    """How one kind of client asks and is answered."""

    read: Callable[[bytes, Limits], EmbeddingsRequest]
    frame: str  # the function that reads large JSON in a worker process
    of_frame: Callable[[bytearray, Limits], EmbeddingsRequest]
    answer: Callable[[EmbeddingsRequest, Embeddings], str]


OPENAI = Form(read_embeddings, FRAME_OF_EMBEDDINGS, embeddings_of_frame, embeddings_answer)
EMBED = Form(read_embed, FRAME_OF_EMBED, embed_of_frame, embed_answer)


@router.post(
    "/v1/embeddings",
    operation_id="create_embeddings",
    response_model=EmbeddingsAnswer,
    responses=RESPONSES,
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=described_body({"application/json": schema_of(EmbeddingsBody)}),
)
async def create_embeddings(request: Request, service: CurrentService, context: CurrentContext) -> Response:
    """Embeds texts, or images where the store reads those, as OpenAI's clients ask.

    `model` names the task whose encoder does it; `base`, and nothing, is the pretrained encoder. Embeddings
    have unit length.
    """
    return await _embed(request, service, context, OPENAI)


async def _named_task(task: str) -> None:
    """Describes the task in a path."""
    del task


async def _task(request: Request) -> str | None:
    task: str | None = request.path_params.get("task")
    return task


@router.post(
    "/embed",
    operation_id="embed",
    responses=RESPONSES,
    dependencies=IF_THERE_IS_ROOM,
    response_model=list[list[float]],
    openapi_extra=described_body({"application/json": schema_of(EmbedBody)}),
)
@router.post(
    "/models/{task}/embed",
    operation_id="embed_for_task",
    responses=RESPONSES,
    dependencies=[Depends(_named_task), *IF_THERE_IS_ROOM],
    response_model=list[list[float]],
    openapi_extra=described_body({"application/json": schema_of(EmbedBody)}),
)
async def embed(
    request: Request,
    service: CurrentService,
    context: CurrentContext,
    task: Annotated[str | None, Depends(_task)],
) -> Response:
    """Embeds texts as clients of text-embeddings-inference and Hugging Face's feature_extraction ask.

    By the pretrained encoder, or by that of the task in the path.
    """
    return await _embed(request, service, context, EMBED, task)


async def _embed(
    request: Request, service: Service, context: RequestContext, form: Form, task: str | None = None
) -> Response:
    answered = partial(_answer, service=service, context=context, form=form, task=task)
    return await answered_in_json(request, service, answered)


async def _answer(
    body: bytes, service: Service, context: RequestContext, form: Form, task: str | None
) -> str:
    limits = limits_of(service.settings)
    asked = await request_of(
        body,
        "application/json",
        service,
        context,
        read=lambda body: form.read(body, limits),
        outside=form.frame,
        of_frame=lambda frame: form.of_frame(frame, limits),
    )
    asked = replace(asked, model=_embedder(task or asked.model, service.engine))
    found = await service.embed(asked.inputs, EmbeddingQuestion(asked.model), context)
    check_dimensions(asked, [len(vector) for vector in found.vectors])
    nbytes = BYTES_A_VALUE * sum(map(len, found.vectors))
    return await service.parsers.run(context.caller.turn(), nbytes, form.answer, asked, found)


def _embedder(name: str | None, engine: ServingEngine) -> str | None:
    """Returns the task that a name means, whose own name may be BASE; None: the pretrained encoder.

    That is also meant by AUTO and by groups, which are what answers where no one task is named. Raises
    NotFoundError for a group that there is not.
    """
    if name is not None and name.startswith(GROUP_MARK):
        with_known_tasks(Question((name,)), engine)
        return None
    return None if name == AUTO or (name == BASE and BASE not in engine.tasks) else name
