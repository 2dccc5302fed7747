"""Builds: their defaults, everything they refuse, and how they take up what was interrupted."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mass_serve.backbone.architecture import Architecture, Block, PatchEmbedding, Pooling
from mass_serve.merging.formats.low_rank import TaskSingularVectors, task_singular_vectors
from mass_serve.merging.methods.tsv_m import merged_parameter
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build, refuse_taken
from mass_serve.model_store.errors import CheckpointError, StoreError, StoreExistsError, TaskError
from mass_serve.model_store.format import rank_choice
from mass_serve.model_store.format.block_formats import unpacked
from mass_serve.model_store.format.factoring import Factoring
from mass_serve.model_store.format.preprocessing import Preprocessing
from mass_serve.model_store.format.rank_rules import RatioRule
from mass_serve.model_store.merged_base import is_slow_to_rebuild
from mass_serve.model_store.plan import TaskInput, default_router_layer
from mass_serve.model_store.revisions import add_task, prune_store, remove_task
from mass_serve.model_store.store import Store
from tests.models import Suite, make_model, make_suite, save_head


@pytest.fixture
def own(tmp_path: Path) -> Suite:
    """Models that a test may damage."""
    return make_suite(tmp_path, ("digits", "street"))


class TestDefaults:
    def test_are_the_papers(self, built: Path) -> None:
        manifest = Store.open(built).manifest
        assert (manifest.compression_ratio, manifest.ratio_budget) == (1 / 2, 1)
        assert (manifest.merged_base, manifest.patch_embedding) == ("rebuilt", "factored")
        router = manifest.router
        assert (router.layer, router.token, router.temperature) == (1, "class", 1.0)
        assert (router.threshold, router.top_k, router.head_choice) == (0.2, 3, "max")
        assert (router.mode, router.first_pass) == ("exact", "pretrained")

    def test_files_are_decoded_as_the_build_says(self, suite: Suite, tmp_path: Path) -> None:
        store = build(suite.pretrained, suite.tasks[:2], tmp_path / "store", BuildOptions(decode="scaled"))
        described = store.manifest.preprocessing
        assert isinstance(described, Preprocessing)
        assert described.decode == "scaled"
        more = add_task(tmp_path / "store", suite.tasks[2])
        assert more.manifest.preprocessing == described, "no model says how files are decoded"

    def test_the_papers_router_looks_at_the_merged_base(self, suite: Suite, tmp_path: Path) -> None:
        store = build(suite.pretrained, suite.tasks[:2], tmp_path / "store", BuildOptions(mode="paper"))
        assert store.manifest.router.first_pass == "merged_base"

    @pytest.mark.parametrize(
        ("depth", "layer"), [(1, 0), (2, 1), (6, 5), (8, 6), (12, 9), (24, 20), (32, 24)]
    )
    def test_router_layer(self, depth: int, layer: int) -> None:
        assert default_router_layer(depth) == layer

    def test_merged_base_is_stored_where_rebuilding_is_slow(self) -> None:
        patches, end = PatchEmbedding(224, 32), Pooling(512)
        vit_b = Architecture(patches, Block(768, 12, 3072, "quick_gelu", 1e-5), 12, end)
        narrow = Architecture(patches, Block(192, 3, 768, "quick_gelu", 1e-5), 12, end)
        rule = RatioRule(compression_ratio=1 / 8)
        for encoder, slow in ((vit_b, True), (narrow, False)):
            ranks = Factoring(encoder, "factored", rule).prescribed()
            assert ranks is not None
            assert is_slow_to_rebuild([ranks] * 8) == slow


def test_options_reach_the_manifest(suite: Suite, tmp_path: Path) -> None:
    options = BuildOptions(
        compression_ratio=0.25,
        mode="fast",
        router_layer=0,
        router_token="mean",
        temperature=2.0,
        threshold=0.0,
        top_k=1,
        head_choice="router",
        first_pass="pretrained",
        late_mlp_share=0.5,
        patch_embedding="averaged",
        block_dtype="float32",
        merged_base="stored",
    )
    tasks = [dataclasses.replace(suite.tasks[0], individual_accuracy=0.875)]
    store = build(suite.pretrained, tasks, tmp_path / "out", options)
    assert store.manifest == Store.open(tmp_path / "out").manifest
    assert store.manifest.router.model_dump() == {
        "mode": "fast",
        "layer": 0,
        "token": "mean",
        "temperature": 2.0,
        "threshold": 0.0,
        "top_k": 1,
        "head_choice": "router",
        "first_pass": "pretrained",
        "late_mlp_share": 0.5,
        "unrouted_below": 0.0,
    }
    assert store.manifest.tasks[0].individual_accuracy == 0.875
    assert store.manifest.tasks[0].rank == 8
    loaded = store.load_experts("digits")
    assert loaded.dense_deltas["patch_embedding.weight"].shape == (32, 192)
    assert unpacked(loaded.singular_vectors["projection.weight"]).u.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_stored_and_rebuilt_merged_base_are_the_same_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    suite = make_suite(tmp_path, ("a", "b"))
    for folder in (suite.pretrained, *(task.checkpoint for task in suite.tasks)):
        weights = load_file(folder / "model.safetensors")
        save_file({key: value.to(dtype) for key, value in weights.items()}, folder / "model.safetensors")
    store = build(suite.pretrained, suite.tasks, tmp_path / "out", BuildOptions(merged_base="stored"))
    pretrained = store.load_pretrained()
    tasks = [store.load_experts(task.name) for task in store.manifest.tasks]
    stored = store.load_merged_base()
    rebuilt = {
        name: merged_parameter(pretrained[name], [task.change(name) for task in tasks]) for name in pretrained
    }
    assert stored is not None
    assert all(torch.equal(stored[name], rebuilt[name]) for name in pretrained)
    assert all(stored[name].dtype == dtype for name in pretrained)
    bias = torch.stack([task.dense_deltas["post_layernorm.bias"] for task in tasks]).mean(0)
    expected = (pretrained["post_layernorm.bias"].float() + bias).to(dtype)
    assert torch.equal(stored["post_layernorm.bias"], expected)


def bytes_of(store: Path) -> dict[str, bytes]:
    """The files of a store but its lock, by path."""
    paths = [path for path in store.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}


class TestSameBuild:
    """Revisions of a new store are named after what they hold."""

    def test_has_the_same_bytes(self, own: Suite, tmp_path: Path) -> None:
        options = BuildOptions(merged_base="stored")
        build(own.pretrained, own.tasks, tmp_path / "a", options)
        for path in tmp_path.rglob("*/config.json"):
            os.utime(path, (1, 1))
        build(own.pretrained, own.tasks, tmp_path / "b", options)
        assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")

    def test_another_head_or_option_is_another_revision(self, own: Suite, tmp_path: Path) -> None:
        first = build(own.pretrained, own.tasks, tmp_path / "a").manifest
        second = build(own.pretrained, own.tasks, tmp_path / "b", BuildOptions(top_k=1)).manifest
        assert first.tasks == second.tasks
        assert first.store_revision != second.store_revision
        save_head(own.tasks[0].checkpoint, 4, 16, seed=99)
        third = build(own.pretrained, own.tasks, tmp_path / "c").manifest
        assert third.tasks[0].revision != first.tasks[0].revision
        assert third.tasks[1] == first.tasks[1]

    def test_a_later_change_never_has_an_earlier_name(self, own: Suite, tmp_path: Path) -> None:
        first = build(own.pretrained, own.tasks, tmp_path / "a").manifest
        again = add_task(tmp_path / "a", own.tasks[0], replace=True).manifest
        assert again.tasks[0].revision != first.tasks[0].revision
        assert Store.open(tmp_path / "a").verify() == []


class TestCapitals:
    """Names of tasks as papers write them."""

    @pytest.fixture
    def capital(self, own: Suite, tmp_path: Path) -> Path:
        named = [dataclasses.replace(own.tasks[0], name="SUN397"), own.tasks[1]]
        build(own.pretrained, named, tmp_path / "store")
        return tmp_path / "store"

    def test_make_a_store_that_earlier_programs_refuse(self, capital: Path) -> None:
        store = Store.open(capital)
        assert [task.name for task in store.manifest.tasks] == ["SUN397", "street"]
        assert json.loads((capital / "manifest.json").read_text())["format_version"] == 2
        assert store.verify() == []
        assert remove_task(capital, "SUN397").manifest.format_version == 2, "it is in the history"

    def test_are_one_name_with_small_letters(self, own: Suite, capital: Path) -> None:
        task = dataclasses.replace(own.tasks[0], name="sun397")
        for replaced in (False, True):
            with pytest.raises(TaskError, match="tasks SUN397 and sun397 differ in their case alone"):
                add_task(capital, task, replace=replaced)
        remove_task(capital, "SUN397")
        with pytest.raises(TaskError, match="differ in their case alone"):
            add_task(capital, task)
        prune_store(capital)
        assert add_task(capital, task).manifest.find_task("sun397") is not None


class TestRefuses:
    """Each before anything is written."""

    def assert_refused(
        self, tmp_path: Path, pretrained: Path, tasks: list[TaskInput], sentence: str, **options: Any
    ) -> None:
        with pytest.raises(StoreError, match=sentence) as caught:
            build(pretrained, tasks, tmp_path / "out", BuildOptions(**options))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["", "Di gits", "a/b", "..", "-a", "a" * 65, "digits\n", "Zürich"])
    def test_bad_names(self, suite: Suite, tmp_path: Path, name: str) -> None:
        task = dataclasses.replace(suite.tasks[0], name=name)
        self.assert_refused(tmp_path, suite.pretrained, [task], "task name .* must be 1 to 64 of A-Z")

    def test_a_name_that_requests_use_otherwise(self, suite: Suite, tmp_path: Path) -> None:
        for name in ("auto", "stats", "Auto", "STATS"):
            task = dataclasses.replace(suite.tasks[0], name=name)
            self.assert_refused(tmp_path, suite.pretrained, [task], f"'{name}' has a meaning in requests")

    def test_duplicate_names(self, suite: Suite, tmp_path: Path) -> None:
        tasks = [suite.tasks[0], dataclasses.replace(suite.tasks[1], name="digits")]
        self.assert_refused(tmp_path, suite.pretrained, tasks, "task digits is given twice")

    def test_names_that_differ_in_their_case_alone(self, suite: Suite, tmp_path: Path) -> None:
        tasks = [suite.tasks[0], dataclasses.replace(suite.tasks[1], name="Digits")]
        told = "tasks digits and Digits differ in their case alone: rename one"
        self.assert_refused(tmp_path, suite.pretrained, tasks, told)

    def test_no_tasks(self, suite: Suite, tmp_path: Path) -> None:
        self.assert_refused(tmp_path, suite.pretrained, [], "at least one task")

    def test_missing_models(self, suite: Suite, tmp_path: Path) -> None:
        self.assert_refused(tmp_path, tmp_path / "gone", list(suite.tasks), "gone does not exist")
        tasks = [suite.tasks[0], TaskInput("street", tmp_path / "gone")]
        self.assert_refused(tmp_path, suite.pretrained, tasks, "gone does not exist")

    def test_unreadable_paths(self, suite: Suite, tmp_path: Path) -> None:
        too_long = Path("x" * 300)
        self.assert_refused(tmp_path, too_long, list(suite.tasks), "x cannot be read: File name too long")

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"hidden_size": 16}, "task other: the fine-tuned model has width 16, the pretrained model 32"),
            ({"num_hidden_layers": 1}, "has depth 1, the pretrained model 2"),
            ({"hidden_act": "gelu"}, "has activation gelu, the pretrained model quick_gelu"),
            ({"projection_dim": 8}, "has projection_dim 8, the pretrained model 16"),
        ],
    )
    def test_other_sizes(self, suite: Suite, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
        make_model(**changes).save_pretrained(tmp_path / "other")
        save_head(tmp_path / "other", 3, changes.get("projection_dim", 16))
        tasks = [suite.tasks[0], TaskInput("other", tmp_path / "other")]
        self.assert_refused(tmp_path, suite.pretrained, tasks, sentence)

    def test_other_preprocessing(self, own: Suite, tmp_path: Path) -> None:
        config = {"image_mean": [0.5, 0.5, 0.5]}
        (own.tasks[1].checkpoint / "preprocessor_config.json").write_text(json.dumps(config))
        sentence = r"task street: the fine-tuned model prepares images with mean \(0.5, 0.5, 0.5\)"
        self.assert_refused(tmp_path, own.pretrained, list(own.tasks), sentence)

    def test_head_of_another_width(self, own: Suite, tmp_path: Path) -> None:
        save_head(own.tasks[1].checkpoint, 5, 7)
        sentence = "task street: the head takes 7 numbers, the encoder gives 16, or 32 without its projection"
        self.assert_refused(tmp_path, own.pretrained, list(own.tasks), sentence)

    def test_heads_before_and_behind_the_projection(self, own: Suite, tmp_path: Path) -> None:
        save_head(own.tasks[1].checkpoint, 5, 32)
        sentence = r"task street: the head takes 32 numbers \(projection_dim None.*\), that of task digits 16"
        self.assert_refused(tmp_path, own.pretrained, list(own.tasks), sentence)

    def test_other_number_of_labels(self, own: Suite, tmp_path: Path) -> None:
        (own.tasks[1].checkpoint / "labels.json").write_text('["a", "b"]')
        sentence = (
            r"task street: the head has 5 classes, but .*labels\.json names 2: give .* --labels street="
        )
        self.assert_refused(tmp_path, own.pretrained, list(own.tasks), sentence)

    @pytest.mark.parametrize(("file", "flag"), [("head.safetensors", "--head"), ("labels.json", "--labels")])
    def test_missing_head_or_labels(self, own: Suite, tmp_path: Path, file: str, flag: str) -> None:
        (own.tasks[1].checkpoint / file).unlink()
        sentence = f"task street: .*{file} does not exist: give {flag} street=FILE"
        self.assert_refused(tmp_path, own.pretrained, list(own.tasks), sentence)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"compression_ratio": 0.0}, "compression ratio must be above 0 and at most 1"),
            ({"compression_ratio": float("nan")}, "compression ratio must be above 0 and at most 1"),
            *(
                ({"compression_ratio": text}, f"or a number above 0 over T, .* such as 2/T, not {text}$")
                for text in ("", "T", "/T", "0/T", "-1/T", "1/t", "nan/T", "1e3/T", "9999999/T", "1/8", "inf")
            ),
            ({"router_layer": 2}, "router layer must be from 0 to 1, not 2"),
            ({"router_layer": -1}, "router layer must be from 0 to 1, not -1"),
            ({"temperature": 0.0}, "temperature: Input should be greater than or equal to 0.000001"),
            ({"threshold": 1.0}, "threshold: Input should be less than 1"),
            ({"top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        ],
    )
    def test_options(self, suite: Suite, tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
        self.assert_refused(tmp_path, suite.pretrained, list(suite.tasks), sentence, **options)

    def test_a_mode_that_there_is_not(self, suite: Suite, tmp_path: Path) -> None:
        """The caller knows which there are; a store does not."""
        options = BuildOptions(mode="nonsense")
        with pytest.raises(StoreError, match="mode must be one of paper, fast, not 'nonsense'"):
            build(suite.pretrained, suite.tasks, tmp_path / "out", options, modes=("paper", "fast"))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("option", [{"head_choice": "least"}, {"block_dtype": "int8"}, {"colour": "red"}])
    def test_words_outside_a_choice_and_unknown_options(self, option: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(option))):
            BuildOptions(**option)

    def test_accuracy(self, suite: Suite, tmp_path: Path) -> None:
        task = dataclasses.replace(suite.tasks[0], individual_accuracy=97.0)
        self.assert_refused(tmp_path, suite.pretrained, [task], "individual accuracy must be from 0 to 1")


@pytest.mark.parametrize("which", ["pretrained", "street"])
def test_nan_weights_are_named_and_leave_no_store(own: Suite, tmp_path: Path, which: str) -> None:
    path = tmp_path / which / "model.safetensors"
    weights = load_file(path)
    weights["vision_model.encoder.layers.1.mlp.fc2.bias"][3] = float("nan")
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=rf"{which}: .*layers\.1\.mlp\.fc2\.bias holds NaN, Inf"):
        build(own.pretrained, own.tasks, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


class TestTakenPlaces:
    def test_a_store(self, suite: Suite, store: Path) -> None:
        before = (store / "manifest.json").read_bytes()
        with pytest.raises(StoreExistsError, match="there is a store at"):
            build(suite.pretrained, suite.tasks, store)
        assert (store / "manifest.json").read_bytes() == before

    @pytest.mark.parametrize("name", ["thesis.txt", "build.json", "tasks/notes.md"])
    def test_foreign_files_stay_untouched(self, suite: Suite, tmp_path: Path, name: str) -> None:
        foreign = tmp_path / "out" / name
        foreign.parent.mkdir(parents=True)
        foreign.write_text("years of work")
        with pytest.raises(StoreExistsError, match="choose"):
            build(suite.pretrained, suite.tasks, tmp_path / "out")
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [foreign]
        assert foreign.read_text() == "years of work"

    def test_are_found_before_long_work(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(StoreExistsError, match="choose an empty folder"):
            refuse_taken(tmp_path)
        refuse_taken(tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_a_file(self, suite: Suite, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(StoreError, match="cannot be written"):
            build(suite.pretrained, suite.tasks, tmp_path / "out")


class Interrupted(BaseException):
    """What a keyboard interrupt is like."""


def interrupt_after(stage: str) -> Callable[[str, int, int], None]:
    def progress(current: str, done: int, total: int) -> None:  # noqa: ARG001
        if current == stage:
            raise Interrupted

    return progress


@pytest.fixture
def svd_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts truncated SVDs."""
    calls: list[int] = []

    def counted(delta: torch.Tensor, rank: int, exact: bool) -> TaskSingularVectors:
        calls.append(rank)
        return task_singular_vectors(delta, rank, exact)

    monkeypatch.setattr(rank_choice, "task_singular_vectors", counted)
    return calls


SVDS_PER_TASK = 11  # patches, positions, projection, and four linears in each of two blocks


class TestResume:
    def test_factored_tasks_are_kept(self, suite: Suite, tmp_path: Path, svd_calls: list[int]) -> None:
        out = tmp_path / "out"
        with pytest.raises(Interrupted):
            build(suite.pretrained, suite.tasks, out, progress=interrupt_after("factoring signs"))
        assert not (out / "manifest.json").exists()
        kept = set(json.loads((out / "build.json").read_text())["finished"])
        assert kept == {"digits", "street"}
        svd_calls.clear()
        store = build(suite.pretrained, suite.tasks, out)
        assert len(svd_calls) == SVDS_PER_TASK
        assert [task.name for task in store.manifest.tasks] == ["digits", "street", "signs"]
        assert store.verify() == []
        assert not (out / "build.json").exists()

    def test_finished_tasks_are_measured_no_second_time(self, suite: Suite, tmp_path: Path) -> None:
        out, stages = tmp_path / "out", []
        with pytest.raises(Interrupted):
            build(suite.pretrained, suite.tasks, out, progress=interrupt_after("factoring signs"))
        store = build(suite.pretrained, suite.tasks, out, progress=lambda stage, *_: stages.append(stage))
        assert {stage for stage in stages if stage.startswith("measuring")} == {"measuring signs"}
        whole = build(suite.pretrained, suite.tasks, tmp_path / "whole").manifest
        assert store.manifest.tasks == whole.tasks

    def test_other_inputs_start_over(self, suite: Suite, tmp_path: Path, svd_calls: list[int]) -> None:
        out = tmp_path / "out"
        with pytest.raises(Interrupted):
            build(suite.pretrained, suite.tasks, out, progress=interrupt_after("factoring signs"))
        svd_calls.clear()
        store = build(suite.pretrained, suite.tasks[:2], out)
        assert len(svd_calls) == 2 * SVDS_PER_TASK
        assert store.verify() == []
        assert set(store.files.list()) == {".lock", "manifest.json", *store.manifest.all_files()}

    def test_changed_files_start_over(self, own: Suite, tmp_path: Path, svd_calls: list[int]) -> None:
        out = tmp_path / "out"
        with pytest.raises(Interrupted):
            build(own.pretrained, own.tasks, out, progress=interrupt_after("factoring street"))
        os.utime(own.tasks[0].checkpoint / "model.safetensors", ns=(1, 1))
        svd_calls.clear()
        build(own.pretrained, own.tasks, out)
        assert len(svd_calls) == 2 * SVDS_PER_TASK

    def test_other_preprocessing_starts_over(self, own: Suite, tmp_path: Path, svd_calls: list[int]) -> None:
        """What an encoder's sizes are may follow from it."""
        out = tmp_path / "out"
        with pytest.raises(Interrupted):
            build(own.pretrained, own.tasks, out, progress=interrupt_after("factoring street"))
        (own.pretrained / "preprocessor_config.json").write_text(json.dumps({"size": 40, "crop_size": 32}))
        svd_calls.clear()
        preprocessing = build(own.pretrained, own.tasks, out).manifest.preprocessing
        assert isinstance(preprocessing, Preprocessing)
        assert preprocessing.size == 40
        assert len(svd_calls) == 2 * SVDS_PER_TASK

    def test_damaged_leftovers_start_over(self, suite: Suite, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with pytest.raises(Interrupted):
            build(suite.pretrained, suite.tasks, out, progress=interrupt_after("factoring signs"))
        experts_file = next(out.glob("tasks/digits/*/experts.safetensors"))
        experts_file.write_bytes(experts_file.read_bytes()[:-1])
        assert build(suite.pretrained, suite.tasks, out).verify() == []


def test_full_disk_is_one_sentence(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, svd_calls: list[int]
) -> None:
    """From the second task on nothing can be written; the same command goes on when there is space."""
    real = os.fsync

    def full(descriptor: int) -> None:
        if len(svd_calls) > SVDS_PER_TASK:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"no space is left at .*; free some space and run") as caught:
        build(suite.pretrained, suite.tasks, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, TaskError)
    assert not list((tmp_path / "out").rglob("*.partial"))
    monkeypatch.setattr(os, "fsync", real)
    svd_calls.clear()
    assert build(suite.pretrained, suite.tasks, tmp_path / "out").verify() == []
    assert len(svd_calls) == 2 * SVDS_PER_TASK
