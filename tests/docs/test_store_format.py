"""The specification of the store names exactly what the program reads and writes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest
from pydantic import BaseModel

from mass_serve.backbone.architecture import (
    Architecture,
    AttentionPooling,
    Block,
    PatchEmbedding,
    Pooled,
    Pooling,
    WordEmbedding,
)
from mass_serve.engine.loaded_store import early_linears
from mass_serve.kernels.activation_names import ACTIVATIONS
from mass_serve.model_store.format.architecture_v1 import FlatArchitecture
from mass_serve.model_store.format.architecture_v2 import (
    StoredAttentionPooling,
    StoredBlock,
    StoredPatches,
    StoredPooling,
    StoredRotary,
    StoredWords,
)
from mass_serve.model_store.format.calibration import calibration_shapes
from mass_serve.model_store.format.entries import CalibrationEntry, RouterSpec, TaskEntry
from mass_serve.model_store.format.field_types import TASK_NAME_PATTERN
from mass_serve.model_store.format.manifest import FORMAT_VERSION, Manifest
from mass_serve.model_store.format.preprocessing import Preprocessing, TextPreprocessing
from mass_serve.model_store.format.rank_rules import BudgetRule, EnergyRule, FixedRankRule
from mass_serve.router import MODE_NAMES, evidence_kinds
from tests import tiny
from tests.docs.pages import ROOT, TEXTS, section, tables

FORMAT = TEXTS[ROOT / "docs" / "store-format.md"]


def _first_cells(anchor: str, index: int = 0) -> list[str]:
    """The names in the first column of a table of a section, the first one."""
    table = tables(section(FORMAT, anchor))[index]
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_version_is_the_programs() -> None:
    assert FORMAT.startswith(f"# Store format, version {FORMAT_VERSION}\n")


@pytest.mark.parametrize(
    ("anchor", "model"),
    [
        ("the-manifest", Manifest),
        ("the-encoder", FlatArchitecture),
        ("preprocessing", Preprocessing),
        ("the-router", RouterSpec),
        ("tasks", TaskEntry),
        ("calibration", CalibrationEntry),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_keys_are_those_of_the_manifest(anchor: str, model: type[BaseModel]) -> None:
    assert sorted(_first_cells(anchor)) == sorted(model.model_fields)


def test_the_rules_for_ranks_are_those_of_the_manifest() -> None:
    rules: tuple[type[BaseModel], ...] = (FixedRankRule, EnergyRule, BudgetRule)
    keys = dict.fromkeys(key for rule in rules for key in rule.model_fields)
    assert _first_cells("ranks", 1) == list(keys)
    kinds = [rule.model_fields["kind"].default for rule in rules]
    assert re.findall(r"of kind `(\w+)`", section(FORMAT, "ranks")) == kinds


def test_the_keys_of_the_parts_are_those_of_the_manifest() -> None:
    found = tables(section(FORMAT, "the-encoder-by-its-parts"))
    parts: list[type[BaseModel]] = [
        *(StoredPatches, StoredWords, StoredBlock, StoredRotary),
        *(StoredPooling, StoredAttentionPooling),
    ]
    for table, model in zip(found, parts, strict=True):
        named = [re.findall(r"`([^`]+)`", row)[0] for row in table.splitlines()[2:]]
        assert named == list(model.model_fields)


def test_the_keys_of_a_texts_preprocessing_are_those_of_the_manifest() -> None:
    assert _first_cells("preprocessing", 1) == list(TextPreprocessing.model_fields)


def test_the_kinds_of_pooling_and_activation_are_the_programs() -> None:
    text = section(FORMAT, "the-encoder-by-its-parts")
    (poolings,) = re.findall(r"^\| `kind` \|(.*class_and_mean.*)$", text, re.MULTILINE)
    assert re.findall(r"`(\w+)`:", poolings) == list(get_args(Pooled))
    (activations, _) = re.findall(r"^\| `activation` \|(.*)$", text, re.MULTILINE)
    assert re.findall(r"`(\w+)`", activations) == list(ACTIVATIONS)


def test_the_routers_defaults_are_the_programs() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| `?([^`|]*?)`? \|$", tables(section(FORMAT, "the-router"))[0], re.MULTILINE
    )
    shown = {name: default for name, default in rows if default}
    defaults = {name: str(f.default) for name, f in RouterSpec.model_fields.items() if not f.is_required()}
    assert defaults.pop("late_token") == "None"  # whose default is another field's value
    assert shown == defaults


def test_the_modes_are_the_routers() -> None:
    (row,) = re.findall(r"^\| `mode` \|([^|]*)see", section(FORMAT, "the-router"), re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == list(MODE_NAMES)


def test_the_parameters_are_the_programs() -> None:
    block = Block(4, 2, 8, "gelu", 1e-5)
    embedding = PatchEmbedding(4, 2, has_bias=True, num_registers=1)
    architecture = Architecture(embedding, block, depth=1, pooling=Pooling(3))
    pooling = AttentionPooling(2, 8, "gelu")
    assert _parameters(0) == list(architecture.parameter_shapes())
    words = WordEmbedding(10, 5, num_types=2)
    assert _parameters(1) == list(words.shapes(4))
    assert _parameters(2) == [name for name in pooling.shapes(4) if "post_layernorm" not in name]


def _parameters(table: int) -> list[str]:
    """The parameters that a table of their section names."""
    named: list[str] = []
    for name in _first_cells("parameters", table):
        shorter = named[-1].rpartition(".")[0] if name.startswith(".") else ""
        named.append(shorter + name.replace("<i>", "0"))
    return named


def test_the_calibrations_tensors_are_the_programs() -> None:
    named = re.findall(r"^\| `(\w+)` \| `\[", section(FORMAT, "calibration"), re.MULTILINE)
    assert named == list(calibration_shapes(kinds=5, tasks=2, classes=7))
    for depth in (1, 6, 12, 24):
        assert (
            evidence_kinds(len(early_linears(replace(tiny.CONFIG, depth=depth))))
            == 3 * max(1, depth // 3) + 3
        )


def test_what_version_2_alone_has_is_named_where_versions_are_told_apart() -> None:
    keys = re.findall(r"^\| `(\w+)` \|.*\bversion 2\b.*\balone\b", FORMAT, re.MULTILINE)
    assert len(keys) > 15
    told = re.findall(r"`([a-z_]+)`", section(FORMAT, "versions"))
    assert [key for key in keys if key not in told] == []


def test_the_name_of_a_task_is_the_programs() -> None:
    assert f"`{TASK_NAME_PATTERN.strip('^$')}`" in FORMAT
