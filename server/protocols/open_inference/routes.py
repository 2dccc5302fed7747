"""The Open Inference Protocol v2: what KServe's and Triton's clients send."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from mass_serve.sandbox.messages import Buffer
from mass_serve.server.protocols.limits import Limits
from mass_serve.server.protocols.models import Model, find_model, model_names
from mass_serve.server.protocols.open_inference.answers import InferAnswer, infer_answer
from mass_serve.server.protocols.open_inference.binary_form import MOST_JSON_BYTES, TO_BINARY_FORM, split
from mass_serve.server.protocols.open_inference.binary_form import options as binary_form_options
from mass_serve.server.protocols.open_inference.infer_inputs import TEXT
from mass_serve.server.protocols.open_inference.infer_requests import (
    InferBody,
    InferRequest,
    decompressed,
    json_part_bytes,
    parse_infer_request,
)
from mass_serve.server.protocols.open_inference.inference import answered
from mass_serve.server.protocols.open_inference.messages import InferResponse
from mass_serve.server.protocols.open_inference.metadata import (
    PLATFORM,
    described_inputs,
    described_model,
    described_outputs,
    described_server,
)
from mass_serve.server.protocols.open_inference.model_statistics import Statistics
from mass_serve.server.protocols.reading import limits_of
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service
from mass_serve.server.web.direct_routes import DirectRoute
from mass_serve.server.web.openapi import BINARY, described_body, optional_header, schema_of
from mass_serve.server.web.receiving import (
    FOR_INFERENCE,
    IF_THERE_IS_ROOM,
    CurrentContext,
    CurrentService,
    read_body,
    while_awaited,
)
from mass_serve.server.web.responses import error_responses, readiness


async def _statistics(request: Request) -> Statistics:
    statistics: Statistics = request.app.state.statistics
    return statistics


async def _version(request: Request) -> str | None:
    version: str | None = request.path_params.get("version")
    return version


async def _named_version(version: str) -> None:
    """Describes the version in a path, which routes with and without one share a function for."""
    del version


CurrentStatistics = Annotated[Statistics, Depends(_statistics)]
CurrentVersion = Annotated[str | None, Depends(_version)]
OF_A_VERSION = [Depends(_named_version)]

router = APIRouter(prefix="/v2", tags=["open_inference"], dependencies=FOR_INFERENCE, route_class=DirectRoute)

CONFIGURED_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32", "BOOL": "TYPE_BOOL"}
JSON_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "schedule_policy", "statistics"]
BODIES = (InferBody,)
REQUEST_BODY = described_body(
    {"application/json": schema_of(InferBody), "application/octet-stream": BINARY},
    optional_header(JSON_LENGTH, "the bytes of the JSON before binary tensors", {"type": "integer"}),
)
INFER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferResponse,
        "description": "JSON, and the binary outputs behind it if there are any",
        "content": {"application/octet-stream": {"schema": BINARY}},
    },
    **error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503, 504),
}


@router.get("", responses=error_responses(401))
@router.get("/", include_in_schema=False)
async def server_metadata(service: CurrentService) -> dict[str, Any]:
    """The server's name, version and extensions."""
    return described_server(service, EXTENSIONS)


@router.get("/models", responses=error_responses(401, 503))
async def list_models(service: CurrentService) -> dict[str, list[str]]:
    """The names of all models."""
    return {"models": model_names(service.engine)}


@router.get("/models/stats", responses=error_responses(401, 503))
async def list_model_statistics(service: CurrentService, statistics: CurrentStatistics) -> dict[str, Any]:
    """What every model has done since the server started."""
    models = [find_model(service.engine, name, None) for name in model_names(service.engine)]
    return _shown(statistics, models)


@router.get("/models/{model}", responses=error_responses(401, 404, 503))
@router.get(
    "/models/{model}/versions/{version}",
    operation_id="model_version_metadata",
    responses=error_responses(401, 404, 503),
    dependencies=OF_A_VERSION,
)
async def model_metadata(model: str, service: CurrentService, version: CurrentVersion) -> dict[str, Any]:
    """A model's inputs, of which a request sends one, or both texts of pairs, and its outputs."""
    return described_model(find_model(service.engine, model, version))


@router.get("/models/{model}/ready", responses=error_responses(401, 404, 503))
@router.get(
    "/models/{model}/versions/{version}/ready",
    operation_id="model_version_ready",
    responses=error_responses(401, 404, 503),
    dependencies=OF_A_VERSION,
)
async def model_ready(model: str, service: CurrentService, version: CurrentVersion) -> JSONResponse:
    """200 while the model answers."""
    found = find_model(service.engine, model, version)
    return readiness({"name": found.name, "ready": service.ready}, service.ready)


@router.get("/models/{model}/config", responses=error_responses(401, 404, 503))
@router.get(
    "/models/{model}/versions/{version}/config",
    operation_id="model_version_config",
    responses=error_responses(401, 404, 503),
    dependencies=OF_A_VERSION,
)
async def model_config(model: str, service: CurrentService, version: CurrentVersion) -> dict[str, Any]:
    """A model's configuration in Triton's terms."""
    found = find_model(service.engine, model, version)
    return {
        "name": found.name,
        "platform": PLATFORM,
        "max_batch_size": service.settings.max_images_per_request,
        # A request has an image in one form, or texts, and maybe second ones beside them.
        "input": [
            {**_as_configured(one), "optional": one["name"] != TEXT} for one in described_inputs(found)
        ],
        "output": [_as_configured(output) for output in described_outputs(found)],
    }


def _as_configured(tensor: dict[str, Any]) -> dict[str, Any]:
    """Returns an input or output in Triton's terms, which leave the batch out."""
    return {
        "name": tensor["name"],
        "data_type": CONFIGURED_TYPES[tensor["datatype"]],
        "dims": tensor["shape"][1:] or [1],
    }


@router.get("/models/{model}/stats", responses=error_responses(401, 404, 503))
@router.get(
    "/models/{model}/versions/{version}/stats",
    operation_id="model_version_statistics",
    responses=error_responses(401, 404, 503),
    dependencies=OF_A_VERSION,
)
async def model_statistics(
    model: str, service: CurrentService, statistics: CurrentStatistics, version: CurrentVersion
) -> dict[str, Any]:
    """What a model has done since the server started, times in nanoseconds."""
    return _shown(statistics, [find_model(service.engine, model, version)])


def _shown(statistics: Statistics, models: list[Model]) -> dict[str, Any]:
    shown = [statistics.of(model.name, model.version).as_triton_shows_it() for model in models]
    named = [{"name": model.name, "version": model.version} for model in models]
    return {"model_stats": [name | figures for name, figures in zip(named, shown, strict=True)]}


@router.post(
    "/models/{model}/infer",
    responses=INFER_RESPONSES,
    dependencies=IF_THERE_IS_ROOM,
    openapi_extra=REQUEST_BODY,
)
@router.post(
    "/models/{model}/versions/{version}/infer",
    operation_id="infer_by_version",
    responses=INFER_RESPONSES,
    dependencies=[*OF_A_VERSION, *IF_THERE_IS_ROOM],
    openapi_extra=REQUEST_BODY,
)
async def infer(
    model: str,
    request: Request,
    service: CurrentService,
    context: CurrentContext,
    statistics: CurrentStatistics,
    version: CurrentVersion,
) -> Response:
    """Classifies a batch: `image` (files) or `pixel_values` in, `label`, `task`, `score` and more out.

    A model of a store that reads texts has `text` in their place, and `text_pair` beside it for pairs. One
    that classifies tokens gives `entities`, which are a JSON list for each text.
    """
    found = find_model(service.engine, model, version)
    with statistics.of(found.name, found.version).request(context):
        body = await read_body(request, service)
        work = _infer(model, version, body, request, service, context)
        answer = await while_awaited(request, service, work)
    if answer.json_length is None:
        return Response(answer.body, media_type="application/json")
    headers = {JSON_LENGTH: str(answer.json_length)}
    return Response(answer.body, media_type="application/octet-stream", headers=headers)


async def _infer(
    name: str, version: str | None, body: bytes, request: Request, service: Service, context: RequestContext
) -> InferAnswer:
    settings = service.settings
    encoding = request.headers.get("content-encoding", "").strip().lower()
    json_length = request.headers.get(JSON_LENGTH)

    limits = limits_of(settings)
    content: Buffer = body
    if encoding:
        hold = partial(service.hold, context=context)
        # One at a time, because it is dear for what was sent; the other threads stay free for other bodies.
        content = await service.parsers.run_alone(
            context.caller.turn(), len(body), decompressed, body, encoding, settings.max_body_bytes, hold
        )
    asked = await _parsed(content, json_length, limits, service, context)
    return await answered(asked, name, version, service, context, infer_answer)


async def _parsed(
    body: Buffer, json_length: str | None, limits: Limits, service: Service, context: RequestContext
) -> InferRequest:
    """Reads a request; one with much JSON is made into its binary form elsewhere first."""
    json_bytes = json_part_bytes(json_length, len(body))
    if json_bytes > MOST_JSON_BYTES:
        options = binary_form_options(json_bytes, limits)
        binary = await service.parsers.run_outside(TO_BINARY_FORM, body, options, context.caller.turn())
        service.hold(len(binary), context)
        body, json_length = split(binary)
    return await service.parsers.run(
        context.caller.turn(), len(body), parse_infer_request, body, json_length, limits
    )
