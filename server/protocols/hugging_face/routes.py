"""Classification as Hugging Face's clients ask for it: an image or texts in, lists of labels out.

Texts are asked about by clients of text-embeddings-inference, too.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from mass_serve.engine import Question, ServingEngine
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.server.protocols.hugging_face.answers import TextAnswer, image_answer, text_answer
from mass_serve.server.protocols.hugging_face.candidates import (
    question_of_candidates,
    refuse_without_candidates,
)
from mass_serve.server.protocols.hugging_face.image_requests import FRAME_OF_JSON, image_of_frame, read_image
from mass_serve.server.protocols.hugging_face.messages import (
    HuggingFaceBody,
    HuggingFaceParameters,
    PredictBody,
    TextClassificationBody,
)
from mass_serve.server.protocols.hugging_face.text_requests import FRAME_OF_TEXTS, read_texts, texts_of_frame
from mass_serve.server.protocols.limits import DEFAULT_TOP_K, checked_top_k
from mass_serve.server.protocols.reading import limits_of, request_of
from mass_serve.server.protocols.writing import num_labels, written_answer
from mass_serve.server.serving.named_tasks import with_known_tasks
from mass_serve.server.serving.request_context import EncodedImages, RequestContext, Texts
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.token_tasks import asks_of_tokens
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

router = APIRouter(tags=["hugging_face"], dependencies=FOR_INFERENCE, route_class=DirectRoute)

BODIES = (HuggingFaceBody, TextClassificationBody, PredictBody)
REQUEST_BODY = described_body(
    {
        "application/octet-stream": IMAGE_FILE,
        "application/json": {"anyOf": [schema_of(body) for body in BODIES]},
    }
)


@router.post(
    "/",
    operation_id="hugging_face_classify",
    response_model=TextAnswer,
    responses=error_responses(400, 401, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=REQUEST_BODY,
)
@router.post(
    "/predict",
    operation_id="predict",
    response_model=TextAnswer,
    responses=error_responses(400, 401, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=REQUEST_BODY,
)
async def classify_among_all(request: Request, service: CurrentService, context: CurrentContext) -> Response:
    """Classifies an image, or texts where the store reads those, whatever its task.

    The answer to an image is a list of labels. `huggingface_hub.InferenceClient` asks about a text at `/`,
    and the answer has a list for each text, also for a single one. Clients of text-embeddings-inference ask
    at `/predict`, where a single text, or pair, has its labels alone. A body with `parameters` is Hugging
    Face's at both paths, and one with `truncate`, `truncation_direction` or `raw_scores` the other's.

    A task that classifies tokens gives Hugging Face's clients the list of entities in a text, and a list of
    such lists for texts in a list. It is asked by its name, or as the only task of the store.
    """
    return await _classify(request, service, context, Question())


@router.post(
    "/models/{task}",
    operation_id="hugging_face_classify_for_task",
    response_model=TextAnswer,
    responses=error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=REQUEST_BODY,
)
@router.post(
    "/models/{task}/predict",
    operation_id="predict_for_task",
    response_model=TextAnswer,
    responses=error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=REQUEST_BODY,
)
async def classify_for_task(
    task: str, request: Request, service: CurrentService, context: CurrentContext
) -> Response:
    """Classifies for one task, for any of a group (`@retail`) or for any of all (`auto`), as at `/`."""
    return await _classify(request, service, context, Question(None if task == AUTO else (task,)))


async def _classify(
    request: Request, service: Service, context: RequestContext, question: Question
) -> Response:
    content_type = request.headers.get("content-type", "")
    to_predict = request.scope["path"].endswith("/predict")

    async def answered(body: bytes) -> str:
        # Which of the two the store in service reads may change while a body comes.
        if service.engine.tokenizer is None:
            return await _of_image(body, content_type, service, context, question)
        return await _of_texts(body, content_type, service, context, question, to_predict)

    return await answered_in_json(request, service, answered)


async def _of_image(
    body: bytes, content_type: str, service: Service, context: RequestContext, question: Question
) -> str:
    image, parameters = await request_of(
        body,
        content_type,
        service,
        context,
        read=lambda body: read_image(body, content_type),
        outside=FRAME_OF_JSON,
        of_frame=image_of_frame,
    )
    top_k = DEFAULT_TOP_K if parameters.top_k is None else parameters.top_k
    checked_top_k(top_k, service.settings.max_top_k)
    engine = service.engine
    question = with_known_tasks(question, engine)
    question = await _among_candidates(parameters, question, engine, service, context)
    answers = await service.classify(EncodedImages([image]), question, context, engine=engine)
    [answer] = answers.classifications
    return image_answer(answer, top_k, parameters)


async def _of_texts(
    body: bytes,
    content_type: str,
    service: Service,
    context: RequestContext,
    question: Question,
    to_predict: bool,
) -> str:
    limits = limits_of(service.settings)
    asked = await request_of(
        body,
        content_type,
        service,
        context,
        read=lambda body: read_texts(body, content_type, to_predict, limits),
        outside=FRAME_OF_TEXTS,
        of_frame=lambda frame: texts_of_frame(frame, to_predict, limits),
    )
    tells_entities = not asked.to_predict
    engine, inputs = service.engine, Texts(asked.texts, asked.truncation)
    question = with_known_tasks(question, engine)
    asked.check_asks(asks_of_tokens(question, engine, tells_entities))
    question = await _among_candidates(asked.parameters, question, engine, service, context)
    answers = await service.classify(inputs, question, context, engine=engine, tells_entities=tells_entities)
    labels = num_labels(answers.classifications, asked.top_k)
    written = partial(text_answer, asked, answers)
    return await written_answer(service.parsers, context.caller.turn(), labels, written)


async def _among_candidates(
    parameters: HuggingFaceParameters,
    question: Question,
    engine: ServingEngine,
    service: Service,
    context: RequestContext,
) -> Question:
    """Returns the question among tasks that know the candidates, if there are any."""
    if parameters.candidate_labels is None:
        refuse_without_candidates(parameters)
        return question
    most = service.settings.max_top_k
    # On a thread: a store may have a million labels.
    return await service.parsers.run(
        context.caller.turn(), 0, question_of_candidates, parameters, question, engine, most
    )
