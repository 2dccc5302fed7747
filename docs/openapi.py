"""The HTTP reference, from the application's OpenAPI description."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from docs.markup import code, plain, table
from mass_serve.server.app import create_app
from mass_serve.server.settings import load_settings

Json = Mapping[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
# A description needs no engine: the application loads one only once it is started.
NO_ENGINE = cast(Any, None)
# The protocol that an operation belongs to, by the longest of these beginnings of its path.
PROTOCOLS = {
    "/v1/": "MASS Serve's own protocol",
    "/predict": "Hugging Face",
    "/embed": "Hugging Face",
    "/v1/embeddings": "OpenAI's embeddings",
    "/models/": "Hugging Face",
    "/v2": "Open Inference Protocol",
    "/v2/repository": "Repository of the Open Inference Protocol",
    "/": "Health, metrics and the page",
}


@dataclass(frozen=True)
class Operation:
    """One thing that the server does, at all paths that do the same."""

    method: str
    paths: tuple[str, ...]
    described: Json


def http_sections() -> str:
    """Every operation by protocol, then every schema."""
    described = create_app(load_settings({}), NO_ENGINE).openapi()
    return "\n\n".join((*_operations(described), *_schemas(described["components"]["schemas"])))


def _operations(described: Json) -> Iterator[str]:
    groups: dict[str, list[Operation]] = {protocol: [] for protocol in PROTOCOLS.values()}
    for operation in _collected(described["paths"]):
        beginning = max(filter(operation.paths[0].startswith, PROTOCOLS), key=len)
        groups[PROTOCOLS[beginning]].append(operation)
    for protocol, operations in groups.items():
        yield f"## {protocol}"
        yield from map(_operation, operations)


def _collected(paths: Json) -> Iterator[Operation]:
    """The operations in the description's order; paths of one function are one operation."""
    found: dict[tuple[str, str], list[tuple[str, Json]]] = {}
    for path, methods in paths.items():
        for method in METHODS:
            if method in methods:
                of = methods[method]
                found.setdefault((method.upper(), of["summary"] + of["description"]), []).append((path, of))
    for (method, _), same in found.items():
        same.sort(key=lambda at: "versions" in at[0])
        yield Operation(method, tuple(path for path, _ in same), same[0][1])


def _operation(operation: Operation) -> str:
    of = operation.described
    parts = [f"### {operation.method} {operation.paths[0]}", plain(of["description"])]
    if others := operation.paths[1:]:
        parts.append(f"The same at {', '.join(code(path) for path in others)}.")
    if parameters := of.get("parameters"):
        parts.append(_parameters(parameters))
    parts += _bodies(of.get("requestBody", {}).get("content", {}))
    parts += _answers(of["responses"])
    return "\n\n".join(parts)


def _parameters(parameters: Iterable[Json]) -> str:
    rows = [
        (
            code(p["name"]),
            p["in"],
            _kind(p["schema"]),
            "yes" if p.get("required") else "no",
            p.get("description", ""),
        )
        for p in parameters
    ]
    return table(("parameter", "in", "type", "required", "meaning"), rows)


def _bodies(content: Json) -> Iterator[str]:
    for kind, body in content.items():
        yield f"Body as {code(kind)}: {_kind(body['schema'])}."


def _answers(responses: Json) -> Iterator[str]:
    for status, response in responses.items():
        for kind, content in response.get("content", {}).items():
            if status.startswith("2"):
                yield f"Answer {status} as {code(kind)}: {_kind(content.get('schema', {}))}."
    errors = [status for status in responses if status.isdigit() and not status.startswith("2")]
    if errors:
        yield f"Errors: {', '.join(errors)}."


def _schemas(schemas: Json) -> Iterator[str]:
    yield "## Schemas"
    for name, schema in schemas.items():
        yield f"### {name}"
        if description := schema.get("description"):
            yield plain(description)
        if "properties" in schema:
            yield _fields(schema)
        else:
            yield f"This is {_kind(schema)}."


def _fields(schema: Json) -> str:
    required = schema.get("required", ())
    rows = [
        (code(name), _kind(field), "yes" if name in required else "no", field.get("description", ""))
        for name, field in schema["properties"].items()
    ]
    return table(("field", "type", "required", "meaning"), rows)


def _kind(schema: Json) -> str:
    """A type in a few words; a schema of its own is a link to it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(code(value) for value in schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_kind(choice) for choice in schema[union])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("format") == "binary":
        return "bytes"
    if isinstance(values := schema.get("additionalProperties"), Mapping) and "properties" not in schema:
        return f"object of {_kind(values)}"
    if "properties" in schema:
        return f"object with {', '.join(code(name) for name in schema['properties'])}"
    return str(schema.get("type", "anything"))
