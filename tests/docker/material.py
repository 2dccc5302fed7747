"""The container's files, read strictly, and what they are compared with."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which a key that is given twice is an error, and not the last one's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != "<<"]
        if len(keys) != len(set(keys)):
            raise yaml.YAMLError(f"a key is given twice in {keys}{node.start_mark}")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def parse_yaml(text: str) -> Any:
    """The only document of a text. Raises YAMLError for anything doubtful."""
    return yaml.load(text, _StrictLoader)


def read_yaml(path: Path) -> Any:
    """The only document of a file."""
    return parse_yaml(path.read_text(encoding="utf-8"))


def instructions(path: Path = DOCKER / "Dockerfile") -> list[tuple[str, str]]:
    """The Dockerfile as (INSTRUCTION, arguments), with continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(pair[0], pair[1]) for pair in pairs]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, with those of the stages that it is built from before its own."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for name, arguments in instructions():
        if name == "FROM":
            parent, _, stage = arguments.split()
            current = list(found.get(parent, []))
            found[stage] = current
        else:
            current.append((name, arguments))
    return found


def environment(stage: str) -> dict[str, str]:
    """What the stage's ENV instructions set."""
    pairs = [arguments for name, arguments in stages()[stage] if name == "ENV"]
    return dict(assignment.split("=", 1) for pair in pairs for assignment in pair.split())


def last(stage: str, instruction: str) -> str:
    """The one that is in force."""
    return [arguments for name, arguments in stages()[stage] if name == instruction][-1]


def health_check() -> list[str]:
    """The command of the image's HEALTHCHECK, which must be in exec form."""
    command: list[str] = json.loads(last("cpu", "HEALTHCHECK").split("CMD", 1)[1])
    return command


def seconds(duration: str) -> float:
    """A duration as Compose writes it; whole minutes and seconds are all that is used here."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert found, duration
    minutes, rest = (int(part or 0) for part in found.groups())
    return 60 * minutes + rest
