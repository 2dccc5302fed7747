"""Blocks of few bits: built, added, converted from what is stored, and refused where they are damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mass_serve.merging import PackedSingularVectors, TaskSingularVectors
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.compacting import compact_store
from mass_serve.model_store.converting import convert_store
from mass_serve.model_store.errors import IntegrityError, StoreExistsError, StoreLockedError, TaskError
from mass_serve.model_store.exporting import task_model
from mass_serve.model_store.format.block_format_names import BlockFormat
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, rollback_task
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from tests.model_store.test_ranks import QKV, block_bytes
from tests.models import Suite

# What rounding may move of a change: of random matrices, in the Frobenius norm.
ERRORS: dict[BlockFormat, float] = {"int8": 0.02, "int4": 0.25}


@pytest.fixture(scope="module")
def built(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two tasks whose blocks are not packed; read only."""
    folder = tmp_path_factory.mktemp("plain") / "store"
    build(suite.pretrained, suite.tasks[:2], folder, BuildOptions(format="bfloat16"))
    return folder


def changes(store: Store, task: str) -> dict[str, Tensor]:
    """Each factored change of a task as one matrix."""
    experts = store.load_experts(task)
    found = {}
    for name in experts.singular_vectors:
        vectors = experts.change(name)
        assert isinstance(vectors, TaskSingularVectors)
        found[name] = (vectors.u.float() * vectors.s) @ vectors.vh.float()
    return found


def assert_near(store: Store, other: Store, task: str, most: float) -> None:
    ours, theirs = changes(store, task), changes(other, task)
    assert ours.keys() == theirs.keys()
    for name, change in ours.items():
        assert float((change - theirs[name]).norm()) <= most * float(theirs[name].norm()), name


def formats(store: Store) -> dict[str, str | None]:
    return {task.name: task.block_format for task in store.manifest.tasks}


class TestBuilding:
    def test_what_is_not_said_is_four_bits(self, suite: Suite, tmp_path: Path) -> None:
        chosen = {
            name: build(suite.pretrained, suite.tasks[:1], tmp_path / name, options)
            for name, options in {
                "nothing": BuildOptions(),
                "format": BuildOptions(format="bfloat16"),
                "dtype": BuildOptions(block_dtype="float16"),
            }.items()
        }
        kept = {name: store.layout.of_entry(store.task("digits")) for name, store in chosen.items()}
        assert {name: layout.block_format for name, layout in kept.items()} == {
            "nothing": "int4",
            "format": "bfloat16",
            "dtype": "float16",
        }

    @pytest.mark.parametrize("block_format", ["int8", "int4"])
    def test_blocks_are_those_of_a_plain_store_but_for_rounding(
        self, suite: Suite, built: Path, tmp_path: Path, block_format: BlockFormat
    ) -> None:
        store = build(suite.pretrained, suite.tasks[:2], tmp_path / "s", BuildOptions(format=block_format))
        assert formats(store) == {"digits": block_format, "street": block_format}
        assert (store.manifest.block_dtype, store.manifest.block_format) == ("bfloat16", block_format)
        plain = Store.open(built)
        for task in store.manifest.tasks:
            assert_near(store, plain, task.name, ERRORS[block_format])
            # What the rank keeps, before rounding.
            assert task.energy_kept == pytest.approx(plain.task(task.name).energy_kept, rel=1e-5)
        ratio = 2 if block_format == "int8" else 4
        assert block_bytes(store) < block_bytes(plain) / (0.8 * ratio)
        assert store.verify() == []

    def test_a_format_of_floating_point_numbers_is_that_dtype(self, suite: Suite, tmp_path: Path) -> None:
        store = build(suite.pretrained, suite.tasks[:1], tmp_path / "s", BuildOptions(format="float16"))
        vectors = store.load_experts("digits").singular_vectors[QKV]
        assert isinstance(vectors, TaskSingularVectors)
        assert vectors.u.dtype == torch.float16

    def test_two_ways_to_keep_blocks_are_refused(self) -> None:
        with pytest.raises(ValueError, match="format int4 and block_dtype float32: give one of them"):
            BuildOptions(format="int4", block_dtype="float32")

    def test_the_same_build_has_the_same_bytes(self, suite: Suite, tmp_path: Path) -> None:
        first, second = (
            build(suite.pretrained, suite.tasks[:2], tmp_path / name, BuildOptions(format="int4"))
            for name in "ab"
        )
        assert first.manifest == second.manifest

    def test_a_task_may_have_a_format_of_its_own(self, suite: Suite, tmp_path: Path) -> None:
        digits, street = suite.tasks[:2]
        tasks = [digits, TaskInput(street.name, street.checkpoint, block_format="bfloat16")]
        store = build(suite.pretrained, tasks, tmp_path / "s", BuildOptions(format="int4"))
        assert formats(store) == {"digits": "int4", "street": None}
        assert store.verify() == []

    def test_a_grown_store_is_as_near_as_one_that_was_built(self, suite: Suite, tmp_path: Path) -> None:
        """What is cut was rounded with the triplets that are gone."""
        build(suite.pretrained, suite.tasks[:1], tmp_path / "grown", BuildOptions(format="int4"))
        for task in suite.tasks[1:]:
            grown = add_task(tmp_path / "grown", task)
        built, exact = (
            build(suite.pretrained, suite.tasks, tmp_path / name, BuildOptions(format=name))
            for name in ("int4", "float32")
        )
        ours, theirs, true = (changes(store, "digits") for store in (grown, built, exact))
        for name, change in true.items():
            assert (ours[name] - change).norm() < 1.1 * (theirs[name] - change).norm() + 1e-6, name

    def test_a_budget_is_of_one_format(self, suite: Suite, tmp_path: Path) -> None:
        digits = suite.tasks[0]
        task = TaskInput(digits.name, digits.checkpoint, block_format="int8")
        with pytest.raises(TaskError, match="task digits: a budget is of blocks in one format"):
            build(suite.pretrained, [task], tmp_path / "s", BuildOptions(budget="0.3x"))

    def test_a_budget_has_more_triplets_of_few_bits(self, suite: Suite, tmp_path: Path) -> None:
        plain, packed = (
            build(
                suite.pretrained, suite.tasks[:2], tmp_path / name, BuildOptions(budget="0.3x", format=name)
            )
            for name in ("bfloat16", "int4")
        )
        assert block_bytes(packed) <= 0.3 * sum(t.nbytes for t in plain.load_pretrained().values())
        ranks = [sum(store.layout.ranks_of(store.task("digits")).values()) for store in (plain, packed)]
        assert ranks[1] > 2 * ranks[0]

    def test_readers_before_them_refuse_the_manifest_and_not_less(self, suite: Suite, tmp_path: Path) -> None:
        store = build(suite.pretrained, suite.tasks[:1], tmp_path / "s", BuildOptions(format="int4"))
        written = json.loads((tmp_path / "s" / MANIFEST_FILE).read_bytes())
        assert written["format_version"] == 2
        # Keys that they do not know, beside a dtype that they do.
        assert (written["block_dtype"], written["block_format"]) == ("bfloat16", "int4")
        assert written["tasks"][0]["block_format"] == "int4"
        assert store.files.url == str(tmp_path / "s")


class TestConverting:
    def test_a_budget_goes_on_holding_later_tasks_to_what_the_others_were(
        self, suite: Suite, tmp_path: Path
    ) -> None:
        """A triplet of int4 takes a quarter of the bytes: at the same level far more would pass."""
        options = BuildOptions(budget="0.3x", format="bfloat16")
        store = build(suite.pretrained, suite.tasks[:2], tmp_path / "s", options)
        convert_store(store.files.url, "int4")
        grown = add_task(store.files.url, suite.tasks[2])
        before, after, added = (
            sum(grown.layout.ranks_of(grown.task(name)).values()) for name in ("digits", "street", "signs")
        )
        assert added < 1.5 * max(before, after)

    @pytest.mark.parametrize("block_format", ["int8", "int4"])
    def test_makes_new_revisions_and_keeps_the_earlier_ones(
        self, store: Path, built: Path, block_format: BlockFormat
    ) -> None:
        plain = Store.open(built)
        converted = convert_store(store, block_format)
        assert formats(converted) == {"digits": block_format, "street": block_format}
        assert converted.verify() == []
        for task in converted.manifest.tasks:
            assert_near(converted, plain, task.name, ERRORS[block_format])
            assert task.ranks == plain.task(task.name).ranks
            assert converted.manifest.history[task.name] == (plain.task(task.name),)
        back = rollback_task(store, "digits")
        assert formats(back) == {"digits": None, "street": block_format}
        assert_near(back, plain, "digits", 0.0)

    def test_a_store_that_is_open_stays_readable(self, store: Path, built: Path) -> None:
        served = Store.open(store)
        convert_store(store, "int4")
        assert_near(served, Store.open(built), "digits", 0.0)
        assert served.verify() == []

    def test_and_back_gives_the_rounded_numbers(self, store: Path) -> None:
        packed = convert_store(store, "int4")
        plain = convert_store(store, "float32")
        assert formats(plain) == {"digits": "float32", "street": "float32"}
        assert_near(plain, packed, "digits", 1e-6)
        # Of the revisions before, each has its own.
        assert [entry.block_format for entry in plain.manifest.history["digits"]] == [None, "int4"]
        assert plain.verify() == []
        first = convert_store(store, "bfloat16")
        assert (first.manifest.block_format, formats(first)["digits"]) == (None, None)

    def test_twice_changes_nothing(self, store: Path) -> None:
        once = convert_store(store, "int4")
        assert convert_store(store, "int4").manifest == once.manifest

    def test_tasks_that_are_added_or_cut_are_kept_alike(self, suite: Suite, store: Path) -> None:
        convert_store(store, "int4")
        added = add_task(store, suite.tasks[2])
        assert set(formats(added).values()) == {"int4"}
        cut = compact_store(store, 0.25)
        assert set(formats(cut).values()) == {"int4"}
        assert cut.verify() == []
        for name, vectors in cut.load_experts("digits").singular_vectors.items():
            of_all = added.load_experts("digits").singular_vectors[name].leading(vectors.rank)
            assert isinstance(vectors, PackedSingularVectors)
            assert isinstance(of_all, PackedSingularVectors)
            assert torch.equal(vectors.vh.codes, of_all.vh.codes)

    def test_to_another_place_leaves_the_store_alone(self, suite: Suite, store: Path, tmp_path: Path) -> None:
        add_task(store, suite.tasks[2])
        before = Store.open(store).manifest
        made = convert_store(store, "int8", tmp_path / "out")
        assert Store.open(store).manifest == before
        assert [task.name for task in made.manifest.tasks] == ["digits", "street", "signs"]
        assert set(formats(made).values()) == {"int8"}
        assert made.manifest.history == {}
        assert Store.open(tmp_path / "out").verify() == []
        assert_near(made, Store.open(store), "signs", ERRORS["int8"])

    def test_a_place_that_is_taken_is_refused(self, store: Path, tmp_path: Path) -> None:
        with pytest.raises(StoreExistsError, match=r"there is a store at .* already"):
            convert_store(store, "int4", store)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes.txt").write_text("mine")
        with pytest.raises(StoreExistsError, match="notes"):
            convert_store(store, "int4", tmp_path / "full")
        # What a conversion that was killed has left is no other file.
        shutil.copytree(store, tmp_path / "half")
        (tmp_path / "half" / MANIFEST_FILE).unlink()
        assert convert_store(store, "int4", tmp_path / "half").verify() == []

    def test_a_store_that_is_being_changed_is_refused(self, store: Path) -> None:
        with open_files(store).lock(), pytest.raises(StoreLockedError):
            convert_store(store, "int4")

    def test_a_plain_model_is_made_of_packed_blocks(self, store: Path, built: Path) -> None:
        plain = task_model(Store.open(built), "digits").parameters
        packed = task_model(convert_store(store, "int8"), "digits").parameters
        for name, parameter in packed.items():
            torch.testing.assert_close(parameter, plain[name], atol=0.02, rtol=0.1)


def rewritten(place: Path, name: str, tensor: Tensor) -> Store:
    """The store with another tensor in the blocks of digits, and the hash that fits."""
    store = Store.open(place)
    entry = store.task("digits")
    path = place / entry.experts_file
    save_file({**load_file(path), name: tensor}, path, metadata={"format": "pt"})
    manifest = json.loads((place / MANIFEST_FILE).read_bytes())
    manifest["tasks"][0]["files"][entry.experts_file] = hashlib.sha256(path.read_bytes()).hexdigest()
    (place / MANIFEST_FILE).write_text(json.dumps(manifest))
    return Store.open(place)


class TestDamage:
    @pytest.mark.parametrize("side", ["u_t", "vh"])
    def test_a_direction_of_zeros_is_refused(self, store: Path, side: str) -> None:
        convert_store(store, "int4")
        path = store / Store.open(store).task("digits").experts_file
        codes = load_file(path)[f"{QKV}.{side}"].clone()
        codes[1] = 0
        damaged = rewritten(store, f"{QKV}.{side}", codes)
        sentence = f"{QKV}.{side} has a row of zeros, which is no direction"
        with pytest.raises(IntegrityError, match=sentence):
            damaged.load_experts("digits")
        assert any(sentence in line for line in damaged.verify())

    @pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e31])
    def test_a_singular_value_that_nobody_can_compute_with_is_refused(
        self, store: Path, value: float
    ) -> None:
        packed = convert_store(store, "int4")
        s = packed.load_experts("digits").singular_vectors[QKV].s.clone()
        s[0] = value
        with pytest.raises(IntegrityError, match=rf"{QKV}.s holds NaN, Inf or a number beyond"):
            rewritten(store, f"{QKV}.s", s).load_experts("digits")

    def test_numbers_of_another_kind_are_refused(self, store: Path) -> None:
        packed = convert_store(store, "int4")
        vectors = packed.load_experts("digits").singular_vectors[QKV]
        assert isinstance(vectors, PackedSingularVectors)
        with pytest.raises(IntegrityError, match=rf"{QKV}.vh must be whole numbers of 8 bits"):
            rewritten(store, f"{QKV}.vh", vectors.vh.codes.float()).load_experts("digits")

    def test_whole_numbers_are_refused_where_none_belong(self, store: Path) -> None:
        vectors = Store.open(store).load_experts("digits").singular_vectors[QKV]
        assert isinstance(vectors, TaskSingularVectors)
        with pytest.raises(IntegrityError, match=rf"{QKV}.u must be floating-point numbers"):
            rewritten(store, f"{QKV}.u", vectors.u.to(torch.int8)).load_experts("digits")

    def test_bytes_of_another_rank_are_refused(self, store: Path) -> None:
        packed = convert_store(store, "int4")
        vectors = packed.load_experts("digits").singular_vectors[QKV]
        assert isinstance(vectors, PackedSingularVectors)
        cut = vectors.vh.codes[:-1].clone()
        with pytest.raises(IntegrityError, match=rf"{QKV}.vh has shape .* expected"):
            rewritten(store, f"{QKV}.vh", cut).load_experts("digits")
