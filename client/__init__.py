"""Asks a MASS server from Python: `Client`, and `AsyncClient` to be awaited. Needs httpx and pydantic.

with Client("http://127.0.0.1:8000") as client:
    print(client.classify("photo.jpg").label)
"""

from mass_serve.client.answers import (
    Alternative,
    Answer,
    Entity,
    EntityAnswer,
    LabelScore,
    Routing,
    Task,
    TaskList,
)
from mass_serve.client.async_client import AsyncClient
from mass_serve.client.blocking_client import Client
from mass_serve.client.errors import (
    BusyError,
    ClientError,
    FailedError,
    RefusedError,
    UnauthorizedError,
    UnreachableError,
)
from mass_serve.client.inputs import Image, Input, Text

__all__ = [
    "Alternative",
    "Answer",
    "AsyncClient",
    "BusyError",
    "Client",
    "ClientError",
    "Entity",
    "EntityAnswer",
    "FailedError",
    "Image",
    "Input",
    "LabelScore",
    "RefusedError",
    "Routing",
    "Task",
    "TaskList",
    "Text",
    "UnauthorizedError",
    "UnreachableError",
]
