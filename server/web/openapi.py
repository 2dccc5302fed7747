"""The OpenAPI description: what the framework makes of the routes, and what it cannot know of them.

A route that reads its body itself describes it by `openapi_extra=described_body({"application/json":
schema_of(Body)})`, and its module's BODIES give the application the models to describe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, TypeAlias

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse

from mass_serve.server.settings import Settings

Json: TypeAlias = dict[str, Any]

BINARY: Json = {"type": "string", "format": "binary"}
IMAGE_FILE = BINARY | {"description": "an image file, whatever its content type is said to be"}
# The tag of what needs an admin's key; everything else that takes keys takes those for inference.
REPOSITORY = "repository"
_COMPONENTS = "#/components/schemas/{model}"


def schema_of(model: type[BaseModel]) -> Json:
    """Returns a reference to a model that is one of the application's `bodies`."""
    return {"$ref": _COMPONENTS.format(model=model.__name__)}


def optional_header(name: str, description: str, schema: Json) -> Json:
    """Returns what the description says of a header that a caller may send."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


REQUEST_ID = optional_header(
    "X-Request-Id",
    "names the request in the answer and in the log; the server makes a name up otherwise",
    {"type": "string"},
)


def described_body(schemas: Mapping[str, Json], *headers: Json) -> Json:
    """Returns the `openapi_extra` of a route by its body's content types and their schemas, and headers."""
    content = {content_type: {"schema": schema} for content_type, schema in schemas.items()}
    return {
        "requestBody": {"required": True, "content": content},
        "parameters": [REQUEST_ID, *headers],
    }


class DescribedApplication(FastAPI):
    """Describes the bodies that routes read themselves too, and keys only where they are asked for."""

    def __init__(self, settings: Settings, bodies: Sequence[type[BaseModel]], **options: Any) -> None:
        """Takes the options of FastAPI; names of functions are the names of operations."""
        super().__init__(generate_unique_id_function=lambda route: route.name, **options)
        self._bodies = bodies
        self._being_described = Lock()
        self._has_keys = {
            REPOSITORY: settings.admin_keys_file is not None,
            None: settings.inference_keys_file is not None,
        }

    def setup(self) -> None:
        """Adds the description's path alone.

        The framework's own pages would make the caller's browser load scripts from the internet.
        """
        self.add_route("/openapi.json", self._send_description, include_in_schema=False)

    def _send_description(self, request: Request) -> JSONResponse:
        # In a thread, as it is no coroutine: the event loop must not stand still for whoever asks first.
        description, prefix = self.openapi(), request.scope.get("root_path", "").rstrip("/")
        # As a proxy is known that serves this under a path of its own.
        return JSONResponse(description | {"servers": [{"url": prefix}]} if prefix else description)

    def openapi(self) -> Json:
        """Returns the description, which is made once, for whoever asks first. Any thread may call it."""
        with self._being_described:
            if self.openapi_schema is None:
                description = super().openapi()  # keeps it, which is too early
                self.openapi_schema = None
                self._describe_bodies(description["components"])
                self._describe_keys(description)
                self.openapi_schema = description
            return self.openapi_schema

    def _describe_bodies(self, components: Json) -> None:
        _, described = models_json_schema(
            [(body, "validation") for body in self._bodies], ref_template=_COMPONENTS
        )
        components["schemas"] = dict(sorted((components["schemas"] | described["$defs"]).items()))

    def _describe_keys(self, description: Json) -> None:
        """Takes the keys out that nobody is asked for here."""
        for item in description["paths"].values():
            for operation in item.values():
                kind = REPOSITORY if REPOSITORY in operation.get("tags", ()) else None
                if not self._has_keys[kind]:
                    operation.pop("security", None)
        if not any(self._has_keys.values()):
            description["components"].pop("securitySchemes", None)
