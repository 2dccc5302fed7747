"""What cannot be loaded is refused with what was expected."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mass_serve.engine.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.router import MODE_NAMES

CPU, FLOAT32 = torch.device("cpu"), torch.float32


def test_a_mode_that_there_is_not_is_refused_with_those_there_are(store: Path) -> None:
    with pytest.raises(ValueError, match=f"^mode must be one of {', '.join(MODE_NAMES)}, not 'telepathy'$"):
        load_store(str(store), CPU, FLOAT32, "telepathy")  # type: ignore[arg-type]


def test_an_engine_of_a_mode_that_there_is_not_is_refused(store: Path) -> None:
    loaded = replace(load_store(str(store), CPU, FLOAT32), mode="telepathy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^mode must be one of {', '.join(MODE_NAMES)}, not 'telepathy'$"):
        Engine(loaded, Execution.LOW_RANK, 1 << 30)


def test_a_manifest_with_an_unknown_mode_is_refused(store: Path) -> None:
    manifest = json.loads((store / MANIFEST_FILE).read_text())
    manifest["router"]["mode"] = "telepathy"
    (store / MANIFEST_FILE).write_text(json.dumps(manifest))
    names = ", ".join(MODE_NAMES)
    with pytest.raises(ManifestError, match=rf"router\.mode must be one of {names}, not 'telepathy'"):
        load_store(str(store), CPU, FLOAT32)


def test_the_manifests_tasks_and_router_are_kept_as_they_are(store: Path) -> None:
    found = load_store(str(store), CPU, FLOAT32, "fast")
    manifest = json.loads((store / MANIFEST_FILE).read_text())
    assert found.router.model_dump() == manifest["router"]
    assert found.mode == "fast"
    assert [head.entry.model_dump(mode="json") for head in found.heads] == manifest["tasks"]
