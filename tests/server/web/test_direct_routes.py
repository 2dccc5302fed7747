"""Direct routes answer as the framework would by itself, and leave to it what is not theirs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader
from starlette.exceptions import HTTPException

from mass_serve.server.web.direct_routes import DirectRoute, DirectRoutes, called_with_request, direct_routes

router = APIRouter(route_class=DirectRoute)


async def _key(key: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]) -> str:
    if key == "wrong":
        raise HTTPException(401, "a key is needed")
    return key or "none"


async def _refuses_teapots(request: Request) -> None:
    if request.path_params.get("name") == "teapot":
        raise HTTPException(418, "no coffee")


@router.post("/things")
@router.post("/things/{name}", dependencies=[Depends(_refuses_teapots)])
async def things(
    request: Request,
    key: Annotated[str, Depends(_key)],
    many: Annotated[list[str] | None, Query()] = None,
    count: Annotated[int | None, Query()] = None,
    kind: Annotated[Literal["best", "each"] | None, Query()] = None,
    sure: Annotated[bool, Query()] = True,
) -> Response:
    told: dict[str, Any] = {"key": key, "many": many, "count": count, "kind": kind, "sure": sure}
    return JSONResponse(told | {"path": request.path_params, "body": (await request.body()).decode()})


@router.get("/model/{name}")
async def model(name: str) -> dict[str, str]:
    return {"name": name}


def application(*, direct: bool) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    app.include_router(router)
    if direct:
        found = direct_routes(router.routes)
        app.add_middleware(DirectRoutes, routes=found, handlers=app.exception_handlers)
    return app


def answer(app: FastAPI, method: str, path: str, key: str | None) -> tuple[int, Any]:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {} if key is None else {"X-API-Key": key}
            return await client.request(method, path, content=b"hello", headers=headers)

    response = asyncio.run(ask())
    body = response.json()
    if response.status_code == 422:  # the framework repeats what was given, too
        body = [{name: one[name] for name in ("loc", "msg", "type")} for one in body["detail"]]
    return response.status_code, body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/things", 200),
        ("POST", "/things?many=a&many=b&count=3&kind=each&sure=no", 200),
        ("POST", "/things?count=1&count=2&unknown=x", 200),
        ("POST", "/things?many=", 200),
        ("POST", "/things?count=x&sure=perhaps&kind=none", 422),
        ("POST", "/things/a%20b?sure=0", 200),
        ("POST", "/things/teapot", 418),
        ("POST", "/things/", 404),
        ("POST", "/things/a/b", 404),
        ("GET", "/things", 405),
        ("GET", "/model/x", 200),
        ("POST", "/nothing", 404),
    ],
)
@pytest.mark.parametrize("key", [None, "right", "wrong"])
def test_answers_are_the_frameworks(method: str, path: str, status: int, key: str | None) -> None:
    answers = [answer(application(direct=direct), method, path, key) for direct in (True, False)]
    assert answers[0] == answers[1]
    # The framework asks for the key first, or last; either way it is asked for.
    assert answers[0][0] in ((401, status) if key == "wrong" else (status,))


def test_what_returns_no_response_is_left_to_the_framework() -> None:
    assert {route.path for route in direct_routes(router.routes)} == {"/things", "/things/{name}"}


def test_a_parameter_that_no_request_has_is_told_at_once() -> None:
    async def unclear(number: int) -> Response:
        raise AssertionError(number)

    with pytest.raises(TypeError, match="'number'"):
        called_with_request(unclear)


@pytest.mark.parametrize("mark", [Query(ge=1), Query(alias="num"), Query(max_length=3)])
def test_bounds_and_names_of_parameters_are_not_passed_over(mark: object) -> None:
    async def bounded(number: Annotated[int, mark] = 5) -> Response:
        raise AssertionError(number)

    bounded.__annotations__["number"] = Annotated[int, mark]
    with pytest.raises(TypeError, match="'number'"):
        called_with_request(bounded)


def plain(request: Request) -> str:
    return request.method


def test_plain_functions_are_refused_as_they_would_run_on_threads() -> None:
    async def direct(method: Annotated[str, Depends(plain)]) -> Response:
        raise AssertionError(method)

    with pytest.raises(TypeError, match="coroutine"):
        called_with_request(direct)
