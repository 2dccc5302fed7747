"""As much of kustomize as the manifests use, so that every overlay is rendered where no kubectl is.

    objects = rendered(DOCKER / "k8s" / "cuda")

A test holds it to kubectl where there is one.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.docker.material import parse_yaml, read_yaml

FILE = "kustomization.yaml"
KNOWN = {"apiVersion", "kind", "labels", "resources", "images", "patches"}
# What tells the elements of these lists apart, in Kubernetes' schema; of all others it is the name.
MERGE_KEYS = {"volumeMounts": "mountPath", "ports": "containerPort"}

Object = dict[str, Any]


class CycleError(Exception):
    """A folder includes one that it lies in, which kustomize refuses, or itself."""


def rendered(folder: Path, within: tuple[Path, ...] = ()) -> list[Object]:
    """The objects of a folder, in the order of its resources. Raises CycleError."""
    folder = folder.resolve()
    told = read_yaml(folder / FILE)
    assert told.keys() <= KNOWN, "rendered by kubectl alone"
    if any(visited.is_relative_to(folder) for visited in within):
        raise CycleError(f"{folder} contains {within[-1]}, which includes it")
    objects: list[Object] = []
    for name in told["resources"]:
        path = folder / name
        objects += rendered(path, (*within, folder)) if path.is_dir() else [read_yaml(path)]
    for labels in told.get("labels", []):
        for one in objects:
            one["metadata"].setdefault("labels", {}).update(labels["pairs"])
    for patch in told.get("patches", []):
        change = parse_yaml(patch["patch"])
        (target,) = [one for one in objects if identity(one) == identity(change)]
        if change.pop("$patch", None) == "delete":
            objects.remove(target)
        else:
            objects[objects.index(target)] = _merged(target, change)
    for image in told.get("images", []):
        for container in [container for one in objects for container in _containers(one)]:
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return objects


def identity(one: Object) -> tuple[str, str]:
    """What tells an object from others."""
    return one["kind"], one["metadata"]["name"]


def _containers(one: Object) -> list[Object]:
    containers: list[Object] = one["spec"].get("template", {}).get("spec", {}).get("containers", [])
    return containers


def _merged(base: Object, change: Object) -> Object:
    """A strategic merge: objects by key, lists of objects by what tells their elements apart."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        if isinstance(value, dict) and key in result:
            result[key] = _merged(result[key], value)
        elif isinstance(value, list) and key in result:
            result[key] = _merged_lists(result[key], value, MERGE_KEYS.get(key, "name"))
        else:
            result[key] = value
    return result


def _merged_lists(base: list[Object], change: list[Object], by: str) -> list[Object]:
    changes = {one[by]: one for one in change}
    merged = [_merged(one, changes.pop(one[by])) if one[by] in changes else one for one in base]
    return [*merged, *changes.values()]
