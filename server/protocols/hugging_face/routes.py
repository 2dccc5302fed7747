"""Classification as Hugging Face's clients ask for it: an image or texts in, lists of labels out.

Texts are asked about by clients of text-embeddings-inference, too.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from mass_serve.engine import Question
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.server.protocols.bodies import is_large_json
from mass_serve.server.protocols.hugging_face.answers import TextAnswer, labels, num_labels, text_answer
from mass_serve.server.protocols.hugging_face.image_requests import FRAME_OF_JSON, image_of_frame, read_image
from mass_serve.server.protocols.hugging_face.messages import (
    HuggingFaceBody,
    HuggingFaceLabel,
    PredictBody,
    TextClassificationBody,
)
from mass_serve.server.protocols.hugging_face.text_requests import FRAME_OF_TEXTS, read_texts, texts_of_frame
from mass_serve.server.protocols.limits import DEFAULT_TOP_K, Limits, checked_top_k
from mass_serve.server.protocols.writing import written_answer
from mass_serve.server.serving.request_context import EncodedImages, RequestContext, Texts
from mass_serve.server.serving.service import Service
from mass_serve.server.serving.token_tasks import asks_of_tokens, is_known
from mass_serve.server.web.openapi import IMAGE_FILE, described_body, schema_of
from mass_serve.server.web.receiving import (
    FOR_INFERENCE,
    IF_THERE_IS_ROOM,
    CurrentContext,
    CurrentService,
    read_body,
    while_awaited,
)
from mass_serve.server.web.responses import error_responses

router = APIRouter(tags=["hugging_face"], dependencies=FOR_INFERENCE)

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
async def classify_among_all(
    request: Request, service: CurrentService, context: CurrentContext
) -> TextAnswer | Response:
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
) -> TextAnswer | Response:
    """Classifies for one task, or for any of them if the task is `auto`, as at `/` and at `/predict`."""
    return await _classify(request, service, context, Question(None if task == AUTO else (task,)))


async def _classify(
    request: Request, service: Service, context: RequestContext, question: Question
) -> TextAnswer | Response:
    body = await read_body(request, service)
    content_type = request.headers.get("content-type", "")
    if service.engine.tokenizer is None:
        of_image = _of_image(body, content_type, service, context, question)
        return await while_awaited(request, service, of_image)
    to_predict = request.scope["path"].endswith("/predict")
    of_texts = _of_texts(body, content_type, service, context, question, to_predict)
    return Response(await while_awaited(request, service, of_texts), media_type="application/json")


async def _of_image(
    body: bytes, content_type: str, service: Service, context: RequestContext, question: Question
) -> list[HuggingFaceLabel]:
    turn = context.caller.turn()
    if is_large_json(body, content_type):
        frame = await service.parsers.run_outside(FRAME_OF_JSON, body, b"", turn)
        service.hold(len(frame), context)
        image, parameters = await service.parsers.run(turn, len(frame), image_of_frame, frame)
    else:
        image, parameters = await service.parsers.run(turn, len(body), read_image, body, content_type)
    top_k = DEFAULT_TOP_K if parameters.top_k is None else parameters.top_k
    checked_top_k(top_k, service.settings.max_top_k)
    answers = await service.classify(EncodedImages([image]), question, context)
    return labels(answers.classifications[0], top_k, parameters.function_to_apply)


async def _of_texts(
    body: bytes,
    content_type: str,
    service: Service,
    context: RequestContext,
    question: Question,
    to_predict: bool,
) -> str:
    turn, parsers, settings = context.caller.turn(), service.parsers, service.settings
    limits = Limits(settings.max_images_per_request, settings.max_top_k, settings.max_text_characters)
    if is_large_json(body, content_type):
        frame = await parsers.run_outside(FRAME_OF_TEXTS, body, b"%d" % limits.most_values, turn)
        service.hold(len(frame), context)
        asked = await parsers.run(turn, len(frame), texts_of_frame, frame, to_predict, limits)
    else:
        asked = await parsers.run(turn, len(body), read_texts, body, content_type, to_predict, limits)
    tells_entities = not asked.to_predict
    engine, inputs = service.engine, Texts(asked.texts, asked.truncation)
    if is_known(question, engine):  # else it is said below which task is not
        asked.check_asks(asks_of_tokens(question, engine, tells_entities))
    answers = await service.classify(inputs, question, context, engine=engine, tells_entities=tells_entities)
    written = partial(text_answer, asked, answers)
    return await written_answer(parsers, turn, num_labels(answers.classifications, asked.top_k), written)
