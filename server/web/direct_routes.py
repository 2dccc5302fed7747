"""Routes of inference, served without the framework's search for a route and its solver of parameters.

    router = APIRouter(route_class=DirectRoute)
    app.add_middleware(DirectRoutes, routes=direct_routes(router.routes), handlers=app.exception_handlers)

Those take longer than all else that a small image costs the event loop: they look at every router before the
one meant, and at every parameter, given or not, with what never changes about it. Here a function's
parameters are looked at once. The description of a route stays the framework's, and it answers whatever is
meant for no direct route.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, cast, get_args

from fastapi import params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

Source = Callable[[Request], Awaitable[Any]]
Handler = Callable[[Request], Awaitable[Response]]
MARKS = (params.Depends, params.Query)


class DirectRoute(APIRoute):
    """A route that is direct if its function returns a Response; the framework has to write anything else."""

    answer: Handler | None = None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns what answers a request, however it was found: what the route depends on comes first."""
        if not _is_kind_of(inspect.signature(self.endpoint, eval_str=True).return_annotation, Response):
            return super().get_route_handler()
        before = [called_with_request(depends.dependency) for depends in self.dependencies]
        answer = called_with_request(self.endpoint)

        async def handle(request: Request) -> Response:
            for check in before:
                await check(request)
            response: Response = await answer(request)
            return response

        self.answer = handle
        return handle


def direct_routes(routes: Iterable[BaseRoute]) -> list[DirectRoute]:
    """Returns those that are direct."""
    return [route for route in routes if isinstance(route, DirectRoute) and route.answer is not None]


class DirectRoutes:
    """Plain ASGI before the framework's routing: finds a route by its whole path, or else by its pattern."""

    def __init__(self, app: ASGIApp, routes: Iterable[DirectRoute], handlers: Mapping[Any, Any]) -> None:
        """`handlers` make responses of exceptions, as the framework has them."""
        self._app = app
        self._direct = ExceptionMiddleware(_answer, handlers=handlers)
        self._by_path: dict[tuple[str, str], list[DirectRoute]] = {}
        self._by_pattern: defaultdict[str, list[DirectRoute]] = defaultdict(list)
        for route in routes:
            for method in route.methods or ():
                if route.param_convertors:
                    self._by_pattern[method].append(route)
                else:
                    self._by_path[method, route.path] = [route]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, by the framework where no route is found here."""
        app = self._direct if scope["type"] == "http" and self._finds_route(scope) else self._app
        await app(scope, receive, send)

    def _finds_route(self, scope: Scope) -> bool:
        method = scope["method"]
        for route in self._by_path.get((method, scope["path"]), self._by_pattern.get(method, ())):
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return True
        return False


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    answer: Handler = scope["route"].answer
    response = await answer(Request(scope, receive, send))
    await response(scope, receive, send)


def called_with_request(function: Callable[..., Any] | None) -> Source:
    """Returns a function of a request that calls this one, of which every parameter comes from a request.

    A parameter is the request, a text that is part of the path, one `Query()` with a default and neither
    bounds nor a name of its own, or what another function, `Depends()`, makes of the request. Raises
    TypeError for any other, and for a plain function: the framework would run it on a thread.
    """
    if function is None or not _is_coroutine_function(function):
        raise TypeError(f"{function!r} must be a coroutine function to be a part of a direct route")
    sources: dict[str, Source] = {}
    queries: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        mark = next((one for one in get_args(parameter.annotation)[1:] if isinstance(one, MARKS)), None)
        if isinstance(mark, params.Query) and _is_plain(mark) and parameter.default is not parameter.empty:
            queries[name] = get_args(parameter.annotation)[0], parameter.default
        elif mark is None and _is_kind_of(parameter.annotation, HTTPConnection):
            sources[name] = _request
        elif isinstance(mark, params.Depends):
            sources[name] = called_with_request(mark.dependency)
        elif mark is None and parameter.annotation is str:
            sources[name] = _part_of_path(name)
        else:
            raise TypeError(f"{function!r}: a direct route cannot make its parameter {name!r}")
    if list(sources.values()) == [_request] and not queries:
        return cast(Source, function)  # it is one: nothing is to be made for it
    query = _Query(queries) if queries else None
    given = tuple(sources.items())

    async def call(request: Request) -> Any:
        arguments = {name: await source(request) for name, source in given}
        if query is not None:
            arguments |= query.of(request)
        return await function(**arguments)

    return call


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _is_plain(mark: params.Query) -> bool:
    return not mark.metadata and mark.alias is None and mark.validation_alias is None


def _is_kind_of(annotation: Any, kind: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, kind)


async def _request(request: Request) -> Request:
    return request


def _part_of_path(name: str) -> Source:
    async def part(request: Request) -> Any:
        return request.path_params[name]

    return part


class _Query:
    """Reads the parameters of a query, of which each has a default."""

    def __init__(self, fields: Mapping[str, tuple[Any, Any]]) -> None:
        """`fields` has the type and the default of each."""
        self._model: type[BaseModel] = create_model("Query", **dict(fields))  # type: ignore[call-overload]
        self._defaults = {name: default for name, (_, default) in fields.items()}
        self._lists = {name for name, (kind, _) in fields.items() if _takes_list(kind)}

    def of(self, request: Request) -> dict[str, Any]:
        """Returns the value of each. Raises RequestValidationError; what is unknown is passed over."""
        if not request.scope["query_string"]:
            return self._defaults
        given = request.query_params
        said = {
            name: given.getlist(name) if name in self._lists else given[name]
            for name in self._defaults
            if name in given
        }
        try:
            read = self._model.model_validate(said)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            raise RequestValidationError(
                [{**one, "loc": ("query", *one["loc"])} for one in problems]
            ) from error
        return {name: getattr(read, name) for name in self._defaults}


def _takes_list(kind: Any) -> bool:
    """Tells whether several values of one name are all meant; of others the last one is."""
    schema = TypeAdapter(kind).json_schema()
    return any(one.get("type") == "array" for one in schema.get("anyOf", [schema]))
