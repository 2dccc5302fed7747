"""POST /v1/classify: images or texts in, labels out."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mass_serve.engine import Aggregation, AnswerKind, ModeName, Priors, Question
from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.limits import DEFAULT_TOP_K
from mass_serve.server.protocols.native.classify_requests import (
    AGGREGATION,
    ANSWER,
    FILES_OF_JSON,
    MODE,
    NAMES,
    ClassifyBody,
    ClassifyForm,
    ClassifyRequest,
    Options,
    parse_request,
    request_of_files,
    split_names,
)
from mass_serve.server.protocols.native.messages import ClassifyAnswer
from mass_serve.server.protocols.reading import limits_of, request_of
from mass_serve.server.protocols.results import results
from mass_serve.server.protocols.together import PRIORS_AS_TEXT, SAME_TASK, STREAM, priors_of_text
from mass_serve.server.protocols.writing import num_labels, written_answer
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.direct_routes import DirectRoute
from mass_serve.server.web.openapi import IMAGE_FILE, described_body, schema_of
from mass_serve.server.web.receiving import (
    FOR_INFERENCE,
    IF_THERE_IS_ROOM,
    CurrentContext,
    CurrentService,
    answered_in_json,
)
from mass_serve.server.web.responses import error_responses

router = APIRouter(tags=["classification"], dependencies=FOR_INFERENCE, route_class=DirectRoute)

BODIES = (ClassifyBody, ClassifyForm)
# The body is read and told apart by this service, not by the framework, so the description is given by hand.
REQUEST_BODY = described_body(
    {
        "application/octet-stream": IMAGE_FILE,
        "multipart/form-data": schema_of(ClassifyForm),
        "application/json": schema_of(ClassifyBody),
    }
)


@router.post(
    "/v1/classify",
    response_model=ClassifyAnswer,
    responses=error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=REQUEST_BODY,
)
async def classify(
    request: Request,
    service: CurrentService,
    context: CurrentContext,
    tasks: Annotated[
        list[str] | None,
        Query(description=f"choose among these tasks, repeated or with commas; {NAMES}"),
    ] = None,
    top_k: Annotated[int | None, Query(description=f"labels per answer, {DEFAULT_TOP_K} by default")] = None,
    answer: Annotated[AnswerKind | None, Query(description=ANSWER)] = None,
    same_task: Annotated[bool | None, Query(description=SAME_TASK)] = None,
    aggregation: Annotated[Aggregation | None, Query(description=AGGREGATION)] = None,
    stream: Annotated[str | None, Query(description=STREAM)] = None,
    priors: Annotated[str | None, Query(description=PRIORS_AS_TEXT)] = None,
    mode: Annotated[ModeName | None, Query(description=MODE)] = None,
) -> Response:
    """Classifies images, or texts where the store reads those, without being told their task.

    The body is an image file, a multipart form with one or more `images`, or JSON with base64; of texts it is
    JSON with `texts`. `tasks`, `top_k`, `answer`, `same_task`, `stream`, `priors` and `mode` may be
    query parameters or part of a form or JSON body, which wins. The order of the results is that of the
    inputs; with answer `each` every input has a result for each task, in the order in which they are named
    or that of `/v1/tasks`, and those of the next input follow.

    A task that classifies the tokens of a text answers with `entities`, made of them by `aggregation`; it is
    asked where it is named alone, or with answer `each`.

    The answer of a task of any number of labels has those that reach their thresholds, maybe none, as
    `labels`; `label` is the likeliest, whether it does or not.
    """
    named = None if tasks is None else split_names(tasks)
    likely = None if priors is None else priors_of_text(priors)
    query = Options(named, top_k, answer, same_task, aggregation, mode, stream, likely)
    content_type = request.headers.get("content-type", "")
    answered = partial(_answer, content_type=content_type, query=query, service=service, context=context)
    return await answered_in_json(request, service, answered)


async def _answer(
    body: bytes, content_type: str, query: Options, service: Service, context: RequestContext
) -> str:
    limits = limits_of(service.settings)
    asked = await request_of(
        body,
        content_type,
        service,
        context,
        read=lambda body: parse_request(body, content_type, query, limits),
        outside=FILES_OF_JSON,
        of_frame=lambda frame: request_of_files(frame, query, limits),
    )
    answers = await service.classify(
        asked.inputs, _question(asked), context, tells_entities=True, stream=asked.together.stream
    )

    def written() -> str:
        answer = ClassifyAnswer(
            id=context.request_id,
            store_revision=answers.store_revision,
            results=results(answers, asked.top_k, asked.aggregation),
        )
        return answer.model_dump_json()

    labels = num_labels(answers.classifications, asked.top_k)
    return await written_answer(service.parsers, context.caller.turn(), labels, written)


def _question(asked: ClassifyRequest) -> Question:
    """Returns what is asked. Raises BadRequestError for what contradicts itself."""
    tasks = None if asked.tasks is None else tuple(asked.tasks)
    try:
        if asked.together.stream is not None and asked.answer == "each":
            raise ValueError(
                "'stream' helps to choose one task, and with answer 'each' all answer; leave one out."
            )
        priors = None if asked.together.priors is None else Priors.of(asked.together.priors)
        return Question(tasks, asked.answer, asked.together.is_one_task, asked.mode, priors)
    except ValueError as error:
        raise BadRequestError(str(error)) from error
