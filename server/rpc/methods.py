"""The methods of the Open Inference Protocol, over what its routes use too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from mass_serve.server.errors import BadRequestError
from mass_serve.server.protocols.models import find_model
from mass_serve.server.protocols.open_inference.binary_form import MOST_JSON_BYTES, options
from mass_serve.server.protocols.open_inference.inference import answered
from mass_serve.server.protocols.open_inference.metadata import described_model, described_server
from mass_serve.server.protocols.open_inference.model_statistics import Statistics
from mass_serve.server.protocols.open_inference.repository import listed_models, load_model, unload_model
from mass_serve.server.protocols.reading import limits_of
from mass_serve.server.rpc import open_inference_pb2 as wire
from mass_serve.server.rpc.infer_answers import infer_message
from mass_serve.server.rpc.infer_requests import (
    TO_BINARY_FORM,
    ModelRequest,
    read_binary_form,
    read_parts,
)
from mass_serve.server.rpc.method import Method
from mass_serve.server.rpc.schema import SERVICE
from mass_serve.server.rpc.wire import split
from mass_serve.server.serving.entrance import Requirement
from mass_serve.server.serving.request_context import RequestContext
from mass_serve.server.serving.service import Service

EXTENSIONS = ["classification", "schedule_policy"]
# Of a message without tensors: a few names.
LONGEST_QUESTION = 1 << 16

Answer = Callable[[Any], Awaitable[Message]]


class Methods:
    """Answers each message of the protocol with another."""

    def __init__(self, service: Service, statistics: Statistics) -> None:
        self._service = service
        self._statistics = statistics

    def all(self) -> list[Method]:
        """Returns the methods, with who may call them."""
        settings, access = self._service.settings, self._service.access
        inference, admin = access.require_inference, access.require_admin
        infer = Method(
            _full_name("ModelInfer"),
            self._infer,
            inference,
            takes_inputs=True,
            timeout=settings.request_timeout,
        )
        return [
            infer,
            replace(infer, name=_full_name("ModelStreamInfer"), streams=True),
            self._small("ServerLive", self._server_live, None),
            self._small("ServerReady", self._server_ready, None),
            self._small("ServerMetadata", self._server_metadata, inference),
            self._small("ModelReady", self._model_ready, inference),
            self._small("ModelMetadata", self._model_metadata, inference),
            self._small("RepositoryIndex", self._repository_index, admin),
            self._small("RepositoryModelLoad", self._load, admin),
            self._small("RepositoryModelUnload", self._unload, admin),
        ]

    def _small(self, name: str, answer: Answer, requires: Requirement | None) -> Method:
        """Returns a method whose message holds a few names, and is parsed at once."""
        kind: type[Message] = getattr(wire, SERVICE.methods_by_name[name].input_type.name)

        async def answer_bytes(message: bytes, _: RequestContext) -> bytes:
            if len(message) > LONGEST_QUESTION:
                raise BadRequestError(f"The message has more than {LONGEST_QUESTION} bytes; send names only.")
            try:
                parsed = kind.FromString(message)
            except DecodeError as error:
                raise BadRequestError(f"The message is no {kind.DESCRIPTOR.name}.") from error
            serialised: bytes = (await answer(parsed)).SerializeToString()
            return serialised

        return Method(_full_name(name), answer_bytes, requires)

    async def _server_live(self, _: wire.ServerLiveRequest) -> Message:
        return wire.ServerLiveResponse(live=self._service.alive)

    async def _server_ready(self, _: wire.ServerReadyRequest) -> Message:
        return wire.ServerReadyResponse(ready=self._service.ready)

    async def _server_metadata(self, _: wire.ServerMetadataRequest) -> Message:
        return _filled(wire.ServerMetadataResponse(), described_server(self._service, EXTENSIONS))

    async def _model_ready(self, asked: wire.ModelReadyRequest) -> Message:
        find_model(self._service.engine, asked.name, asked.version or None)
        return wire.ModelReadyResponse(ready=self._service.ready)

    async def _model_metadata(self, asked: wire.ModelMetadataRequest) -> Message:
        model = find_model(self._service.engine, asked.name, asked.version or None)
        return _filled(wire.ModelMetadataResponse(), described_model(model))

    async def _repository_index(self, asked: wire.RepositoryIndexRequest) -> Message:
        models = listed_models(self._service, asked.ready)
        return _filled(wire.RepositoryIndexResponse(), {"models": models})

    async def _load(self, asked: wire.RepositoryModelLoadRequest) -> Message:
        if asked.parameters:
            raise BadRequestError("Models are loaded as the store has them; send no parameters.")
        await load_model(self._service, asked.model_name)
        return wire.RepositoryModelLoadResponse()

    async def _unload(self, asked: wire.RepositoryModelUnloadRequest) -> Message:
        await unload_model(self._service, asked.model_name)
        return wire.RepositoryModelUnloadResponse()

    async def _infer(self, message: bytes, context: RequestContext) -> bytes:
        request = await self._read(message, context)
        model = find_model(self._service.engine, request.model, request.version)
        write = partial(infer_message, raw=request.raw)
        with self._statistics.of(model.name, model.version).request(context):
            return await answered(
                request.asked, request.model, request.version, self._service, context, write
            )

    async def _read(self, message: bytes, context: RequestContext) -> ModelRequest:
        """Reads a request; one with much beside raw tensors is made into its binary form elsewhere first."""
        parsers, turn = self._service.parsers, context.caller.turn()
        limits = limits_of(self._service.settings)
        parts = split(message)
        if len(parts.rest) <= MOST_JSON_BYTES:
            return await parsers.run(turn, len(message), read_parts, parts, limits)
        binary = await parsers.run_outside(TO_BINARY_FORM, message, options(0, limits), turn)
        self._service.hold(len(binary), context)
        return await parsers.run(turn, len(binary), read_binary_form, binary, limits)


def _full_name(name: str) -> str:
    return f"{SERVICE.full_name}/{name}"


def _filled(message: Message, content: Mapping[str, Any]) -> Message:
    return ParseDict(content, message, descriptor_pool=SERVICE.file.pool)
