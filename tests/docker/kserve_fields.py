"""Prints the fields of a manifest, from standard input, that KServe's or Kubernetes' own classes do not have.

`python -m tests.docker.kserve_fields CLASS WHERE`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any


def unknown_fields(value: Any, model: str, where: str) -> list[str]:
    """Returns the fields that KServe's, or Kubernetes', own classes do not have."""
    listed = re.fullmatch(r"list\[(.+)\]", model)
    if listed:
        return [
            name for n, one in enumerate(value) for name in unknown_fields(one, listed[1], f"{where}[{n}]")
        ]
    known = _model(model)
    if known is None or not isinstance(value, dict):
        return []
    types = {known.attribute_map[name]: kind for name, kind in known.openapi_types.items()}
    return [
        name
        for key, one in value.items()
        for name in (
            unknown_fields(one, types[key], f"{where}.{key}") if key in types else [f"{where}.{key}"]
        )
    ]


def _model(name: str) -> Any:
    """Returns the class of that name, None for text, numbers and maps."""
    for package in ("kserve.models", "kubernetes.client"):
        found = getattr(importlib.import_module(package), name, None)
        if found is not None:
            return found
    return None


if __name__ == "__main__":
    print(*unknown_fields(json.load(sys.stdin), *sys.argv[1:3]))
