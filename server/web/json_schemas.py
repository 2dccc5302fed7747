"""JSON schemas of bodies that this service reads itself, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def inlined_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Returns a model's schema with every nested model in its place: a reference would point to nothing."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in node]
        if not isinstance(node, dict):
            return node
        definition = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return {key: inlined(value) for key, value in (definition | beside).items()}

    result: dict[str, Any] = inlined(schema)
    return result
