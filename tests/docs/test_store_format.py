"""The specification of the store names exactly what the program reads and writes."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from pydantic import BaseModel

from mass_serve.model_store.backbone_spec import BackboneSpec, parameter_shapes
from mass_serve.model_store.format.field_types import TASK_NAME_PATTERN
from mass_serve.model_store.format.manifest import (
    FORMAT_VERSION,
    CalibrationEntry,
    Manifest,
    PreprocessingSpec,
    RouterSpec,
    TaskEntry,
)
from mass_serve.router import Calibration, evidence_kinds
from tests.docs.pages import ROOT, TEXTS, section, tables

FORMAT = TEXTS[ROOT / "docs" / "store-format.md"]


def _first_cells(anchor: str) -> list[str]:
    """The names in the first column of the first table of a section."""
    table = tables(section(FORMAT, anchor))[0]
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_version_is_the_programs() -> None:
    assert FORMAT.startswith(f"# Store format, version {FORMAT_VERSION}\n")


@pytest.mark.parametrize(
    ("anchor", "model"),
    [
        ("the-manifest", Manifest),
        ("the-encoder", BackboneSpec),
        ("preprocessing", PreprocessingSpec),
        ("the-router", RouterSpec),
        ("tasks", TaskEntry),
        ("calibration", CalibrationEntry),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_keys_are_those_of_the_manifest(anchor: str, model: type[BaseModel]) -> None:
    assert sorted(_first_cells(anchor)) == sorted(model.model_fields)


def test_the_routers_defaults_are_the_programs() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| `?([^`|]*?)`? \|$", tables(section(FORMAT, "the-router"))[0], re.MULTILINE
    )
    shown = {name: default for name, default in rows if default}
    defaults = {name: f.default for name, f in RouterSpec.model_fields.items() if not f.is_required()}
    assert shown == {name: str(default) for name, default in defaults.items()}


def test_the_parameters_are_the_programs() -> None:
    spec = BackboneSpec(
        image_size=4,
        patch_size=2,
        width=4,
        depth=1,
        num_attention_heads=2,
        mlp_width=8,
        activation="gelu",
        layer_norm_eps=1e-5,
        projection_dim=3,
    )
    named: list[str] = []
    for name in _first_cells("parameters"):
        shorter = named[-1].rpartition(".")[0] if name.startswith(".") else ""
        named.append(shorter + name.replace("<i>", "0"))
    assert named == list(parameter_shapes(spec))


def test_the_calibrations_tensors_are_the_programs() -> None:
    named = re.findall(r"^\| `(\w+)` \| `\[", section(FORMAT, "calibration"), re.MULTILINE)
    assert named == [field.name for field in fields(Calibration)]
    for depth in (1, 6, 12, 24):
        assert evidence_kinds(depth) == 3 * max(1, depth // 3) + 2


def test_the_name_of_a_task_is_the_programs() -> None:
    assert f"`{TASK_NAME_PATTERN.strip('^$')}`" in FORMAT
