"""What cannot be loaded is refused with what was expected."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mass_serve.backbone import forms_of, nbytes_of, weight_of
from mass_serve.backbone.architecture import BlockNames
from mass_serve.engine.engine import Engine
from mass_serve.engine.execution import Execution
from mass_serve.engine.loading import load_store
from mass_serve.kernels import QuantisedWeight
from mass_serve.kernels.backend import backend
from mass_serve.model_store.errors import ManifestError
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.store import Store
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


def test_weights_in_whole_numbers_take_a_byte_each_and_no_wide_copy_stays(store: Path) -> None:
    plain, whole = (load_store(str(store), CPU, dtype) for dtype in (FLOAT32, torch.int8))
    patches = plain.architecture.embedding.linears
    weights = {weight_of(linear) for linear in plain.architecture.linears if linear not in patches}
    last_qkv = weight_of(BlockNames(plain.architecture.depth - 1).qkv)  # may lie in parts beside the whole
    for name, form in forms_of(whole.pretrained).items():
        numbers = plain.pretrained[name]
        assert isinstance(form, QuantisedWeight) == (name in weights)
        if isinstance(form, QuantisedWeight):
            of_one = numbers.numel() + 4 * len(numbers)
            assert form.nbytes == of_one * (2 if form.apart else 1)
            assert name == last_qkv or not form.apart
        steps = numbers.abs().amax(-1, keepdim=True) / 127
        assert ((whole.pretrained[name].float() - numbers).abs() <= steps).all()
    assert forms_of(whole.first_pass).items() <= forms_of(whole.pretrained).items()


def test_a_parameter_is_placed_before_the_next_is_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    still_there = []
    read = Store.pretrained_tensors

    def watched(opened: Store) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in read(opened):
            seen.append(weakref.ref(tensor))
            yield name, tensor
            still_there.append(sum(one() is not None for one in seen))

    monkeypatch.setattr(Store, "pretrained_tensors", watched)
    load_store(str(store), CPU, torch.bfloat16)
    assert len(still_there) > 10
    assert max(still_there) <= 2  # this one, and who takes the next may not have let go of the last


def test_a_merged_base_is_in_whole_numbers_too(store: Path) -> None:
    found = load_store(str(store), CPU, torch.int8, "paper")
    assert any(isinstance(form, QuantisedWeight) for form in forms_of(found.first_pass).values())
    assert 0 < found.first_pass_nbytes <= nbytes_of(found.pretrained)


def test_an_encoder_is_shared_by_engines_of_one_dtype_alone(store: Path) -> None:
    first = load_store(str(store), CPU, torch.int8)
    assert load_store(str(store), CPU, torch.int8, previous=first).pretrained is first.pretrained
    wide = next(iter(first.pretrained.values())).dtype
    assert load_store(str(store), CPU, wide, previous=first).pretrained is not first.pretrained


def test_whole_numbers_are_refused_where_fused_kernels_would_read_them(store: Path) -> None:
    with backend("fused"), pytest.raises(ValueError, match=r"^dtype: int8 .* use bfloat16, or auto$"):
        load_store(str(store), CPU, torch.int8)
