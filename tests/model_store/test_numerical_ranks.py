"""No rule invents directions: what a task left alone has rank 0, and a merged LoRA its own rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mass_serve.merging import merged_parameter
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task
from mass_serve.model_store.store import Store
from tests.model_store.readers.test_adapters import MODULE, RANK, save_adapter, small_config
from tests.models import Suite, make_model, perturb, save_head

RULES: dict[str, dict[str, Any]] = {
    "the default": {},
    "ratio": {"compression_ratio": 1.0},
    "rank": {"rank": 9},
    "energy": {"energy": 1.0},
    "budget": {"budget": "100x"},
}
QKV = "blocks.0.attention.qkv.weight"


def saved(model: Any, folder: Path, width: int) -> TaskInput:
    model.save_pretrained(folder)
    save_head(folder, 4, width)
    return TaskInput(folder.name, folder)


def ranks(store: Store, task: str) -> dict[str, int]:
    """The ranks that are not 0."""
    return {name: rank for name, rank in store.layout.ranks_of(store.task(task)).items() if rank}


def is_moved_by(store: Store, task: str, other: str, name: str) -> bool:
    """Tells whether merging another task changes what a task makes of a parameter."""
    own, others = (store.load_experts(each).change(name) for each in (task, other))
    before = store.load_pretrained()[name]
    return not torch.equal(merged_parameter(before, [own]), merged_parameter(before, [own, others]))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_what_a_whole_model_left_alone_moves_no_other_task(
    rule: str, exact: bool, suite: Suite, tmp_path: Path
) -> None:
    probe = make_model()
    with torch.no_grad():
        probe.visual_projection.weight.add_(0.05 * torch.randn(16, 32))
    tasks = [suite.tasks[0], saved(probe, tmp_path / "probe", 16)]
    store = build(suite.pretrained, tasks, tmp_path / "out", BuildOptions(**RULES[rule], exact=exact))
    assert [*ranks(store, "probe")] == ["projection.weight"]
    assert store.verify() == []
    frozen = [name for name in store.manifest.factored_parameters if name != "projection.weight"]
    assert not any(is_moved_by(store, "digits", "probe", name) for name in frozen)
    assert is_moved_by(store, "digits", "probe", "projection.weight")
    # The task that was fine-tuned as a whole has what the rule gives.
    assert len(ranks(store, "digits")) == len(store.manifest.factored_parameters)


def merged_clip(pretrained: Path, adapter: Path, folder: Path) -> TaskInput:
    """The adapter of MODULE as a whole model, as PEFT's merge_and_unload makes it."""
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(pretrained)
    return saved(merged(model, MODULE, adapter), folder, 16)


def merged(model: Any, module: str, adapter: Path) -> Any:
    up, down = (load_file(adapter / "adapter_model.safetensors")[key] for key in factors(module))
    alpha = json.loads((adapter / "adapter_config.json").read_text())["lora_alpha"]
    with torch.no_grad():
        model.get_submodule(module).weight += alpha / RANK * up @ down
    return model


def factors(module: str) -> list[str]:
    return [f"base_model.model.{module}.lora_{side}.weight" for side in "BA"]


@pytest.mark.parametrize("rule", RULES)
def test_a_lora_that_was_merged_into_a_whole_model_has_the_adapters_ranks(
    rule: str, suite: Suite, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained)
    whole = merged_clip(suite.pretrained, adapter, tmp_path / "whole")
    tasks = [suite.tasks[0], TaskInput("adapter", adapter), whole]
    store = build(suite.pretrained, tasks, tmp_path / "out", BuildOptions(**RULES[rule]))
    assert ranks(store, "adapter") == ranks(store, "whole") == {QKV: RANK}


def test_a_change_that_is_only_rounding_is_none(suite: Suite, tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.zeros(())))
    store = build(suite.pretrained, [saved(model, tmp_path / "same", 16)], tmp_path / "out")
    assert ranks(store, "same") == {}
    assert store.task("same").distance == pytest.approx(0, abs=1e-7)


def test_a_small_fine_tuning_keeps_the_ranks_of_the_rule(suite: Suite, tmp_path: Path) -> None:
    """By a twentieth of the least distance that was measured."""
    model = make_model()
    perturb(model, 1, 2e-6)
    store = build(
        suite.pretrained, [saved(model, tmp_path / "soft", 16)], tmp_path / "out", BuildOptions(rank=9)
    )
    assert store.task("soft").distance == pytest.approx(1e-5, rel=1)
    assert store.task("soft").ranks is None


def dinov2(folder: Path) -> Any:
    model = transformers.Dinov2Model(small_config("Dinov2"))
    perturb(model, 3, 0.02)
    model.save_pretrained(folder)
    return model


def test_dinov2s_scaled_linears_and_positions_are_left_alone_however_they_are_read(tmp_path: Path) -> None:
    model = dinov2(tmp_path / "base")
    module = next(name for name, _ in model.named_modules() if name.endswith("q_proj"))
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "base", module)
    lost = save_adapter(tmp_path / "lost", Path("org/gone"), module)
    for folder in (adapter, lost):
        save_head(folder, 4, 32)
    whole = saved(merged(model, module, adapter), tmp_path / "whole", 32)
    options = BuildOptions(compression_ratio=0.5)
    store = build(tmp_path / "base", [TaskInput("adapter", adapter), whole], tmp_path / "out", options)
    add_task(tmp_path / "out", TaskInput("lost", lost), force=True)
    store = Store.open(tmp_path / "out")
    assert [ranks(store, name) for name in ("adapter", "whole", "lost")] == [{QKV: RANK}] * 3
