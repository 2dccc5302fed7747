"""What the routes take from the application and from the request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from server.service import RequestRecord, Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _record(request: Request) -> RequestRecord:
    record: RequestRecord = request.state.record
    return record


CurrentService = Annotated[Service, Depends(_service)]
CurrentRecord = Annotated[RequestRecord, Depends(_record)]
