"""Image classification as Hugging Face's inference clients ask for it: an image in, a list of labels out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from mass_serve.engine import Classification, Question
from mass_serve.model_store.format.field_types import AUTO
from mass_serve.server.protocols.bodies import is_large_json
from mass_serve.server.protocols.hugging_face.image_requests import FRAME_OF_JSON, image_of_frame, read_image
from mass_serve.server.protocols.hugging_face.messages import HuggingFaceLabel, HuggingFaceParameters
from mass_serve.server.protocols.limits import DEFAULT_TOP_K, checked_top_k
from mass_serve.server.serving.preparing import refuse_images
from mass_serve.server.serving.request_context import EncodedImages, RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.receiving import (
    FOR_INFERENCE,
    IF_THERE_IS_ROOM,
    CurrentContext,
    CurrentService,
    read_body,
    while_awaited,
)
from mass_serve.server.web.responses import error_responses

router = APIRouter(dependencies=FOR_INFERENCE)

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "inputs": {"type": "string", "description": "the image file in standard base64"},
                    "parameters": HuggingFaceParameters.model_json_schema(),
                },
                "required": ["inputs"],
            }
        },
    },
}


@router.post(
    "/",
    responses=error_responses(400, 401, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra={"requestBody": REQUEST_BODY},
)
@router.post(
    "/predict",
    responses=error_responses(400, 401, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def classify_among_all(
    request: Request, service: CurrentService, context: CurrentContext
) -> list[HuggingFaceLabel]:
    """Classifies one image, whatever its task, as `huggingface_hub.InferenceClient` asks for it."""
    return await _classify(request, service, context, Question())


@router.post(
    "/models/{task}",
    responses=error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def classify_for_task(
    task: str, request: Request, service: CurrentService, context: CurrentContext
) -> list[HuggingFaceLabel]:
    """Classifies one image for one task, or for any of them if the task is `auto`."""
    return await _classify(request, service, context, Question(None if task == AUTO else (task,)))


async def _classify(
    request: Request, service: Service, context: RequestContext, question: Question
) -> list[HuggingFaceLabel]:
    body = await read_body(request, service)
    work = _answer(body, request.headers.get("content-type", ""), service, context, question)
    return await while_awaited(request, service, work)


async def _answer(
    body: bytes, content_type: str, service: Service, context: RequestContext, question: Question
) -> list[HuggingFaceLabel]:
    refuse_images(service.engine)  # before a text is told that it is no base64
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
    return _labels(answers.classifications[0], top_k, parameters.function_to_apply or "softmax")


def _labels(answer: Classification, top_k: int, function: str) -> list[HuggingFaceLabel]:
    """Returns the `top_k` labels of the winning task, ties in label order."""
    scores = {
        "softmax": answer.probabilities,
        "sigmoid": answer.logits.sigmoid(),
        "none": answer.logits,
    }[function]
    order = answer.logits.argsort(descending=True, stable=True)[:top_k].tolist()
    return [
        HuggingFaceLabel(
            label=answer.labels[i],
            score=score,
            task=answer.task,
            task_revision=answer.task_revision,
            unrouted=answer.unrouted,
        )
        for i, score in zip(order, scores[order].tolist(), strict=True)
    ]
