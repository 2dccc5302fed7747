"""KServe's v1: what its clients send that do not speak the Open Inference Protocol."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from mass_serve.server.errors import NotFoundError
from mass_serve.server.protocols.kserve.answers import (
    ModelNames,
    ModelReadiness,
    Predictions,
    listed,
    predictions,
)
from mass_serve.server.protocols.kserve.messages import PredictInstances
from mass_serve.server.protocols.kserve.predict_requests import (
    FRAME_OF_INSTANCES,
    instances_of_frame,
    read_instances,
)
from mass_serve.server.protocols.models import find_model, model_names
from mass_serve.server.protocols.reading import limits_of, request_of
from mass_serve.server.protocols.writing import num_labels, written_answer
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.direct_routes import DirectRoute
from mass_serve.server.web.openapi import described_body, schema_of
from mass_serve.server.web.paths import part_before_colon
from mass_serve.server.web.receiving import (
    FOR_INFERENCE,
    IF_THERE_IS_ROOM,
    CurrentContext,
    CurrentService,
    answered_in_json,
)
from mass_serve.server.web.responses import error_responses, readiness

router = APIRouter(prefix="/v1/models", tags=["kserve"], dependencies=FOR_INFERENCE, route_class=DirectRoute)

MODEL = part_before_colon("model")
BODIES = (PredictInstances,)


@router.get("", operation_id="list_kserve_models", responses=error_responses(401, 503))
async def list_models(service: CurrentService) -> ModelNames:
    """The names of all models, as KServe's clients and OpenAI's ask for them."""
    return listed(model_names(service.engine))


@router.get(
    f"/{MODEL}",
    operation_id="kserve_model_ready",
    response_model=ModelReadiness,
    responses=error_responses(401, 404, 503),
)
async def model_ready(model: str, service: CurrentService) -> JSONResponse:
    """200 while the model answers."""
    found = find_model(service.engine, model, None)
    return readiness(ModelReadiness(name=found.name, ready=service.ready).model_dump(), service.ready)


@router.post(
    f"/{MODEL}:predict",
    operation_id="kserve_predict",
    response_model=Predictions,
    responses=error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504),
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=described_body({"application/json": schema_of(PredictInstances)}),
)
async def predict(model: str, request: Request, service: CurrentService, context: CurrentContext) -> Response:
    """Classifies the images or texts in `instances`, by a task or, as `auto`, among all."""
    answered = partial(_answer, model=model, service=service, context=context)
    return await answered_in_json(request, service, answered)


async def _answer(body: bytes, model: str, service: Service, context: RequestContext) -> str:
    limits = limits_of(service.settings)
    asked = await request_of(
        body,
        "application/json",
        service,
        context,
        read=lambda body: read_instances(body, limits),
        outside=FRAME_OF_INSTANCES,
        of_frame=lambda frame: instances_of_frame(frame, limits),
    )
    engine = service.engine
    found = find_model(engine, model, None)
    answers = await service.classify(
        asked.inputs,
        found.question(asked.mode, asked.together),
        context,
        engine=engine,
        tells_entities=found.each_token,
        stream=asked.together.stream,
    )
    labels = num_labels(answers.classifications, asked.top_k)
    written = partial(predictions, asked, answers)
    return await written_answer(service.parsers, context.caller.turn(), labels, written)


@router.post(f"/{MODEL}:explain", include_in_schema=False)
async def explain(model: str) -> None:
    """Says where the reasons are: there is no explainer beside the predictor."""
    raise NotFoundError(
        f"There is no explainer of {model[:80]!a}; POST /v1/models/MODEL:predict, whose predictions say by"
        " 'routing' how their task was chosen."
    )
