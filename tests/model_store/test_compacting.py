"""Stores that stay within their budget: tasks cut from what is stored of them alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mass_serve.merging import merged_parameter
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.compacting import compact_store
from mass_serve.model_store.errors import IntegrityError, StoreError, StoreLockedError
from mass_serve.model_store.format.block_formats import unpacked
from mass_serve.model_store.format.rank_rules import BudgetRule, RatioRule
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.revisions import add_task, prune_store, remove_task, rollback_task
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from mass_serve.model_store.writing import publish
from tests.model_store.readers.test_adapters import save_adapter
from tests.model_store.test_ranks import QKV, block_bytes, ranks
from tests.model_store.test_revisions import assert_same_experts, names
from tests.models import Suite

# Tiny matrices are decomposed as a whole, so that what is cut has the bits of what is built.


def revisions(store: Store) -> dict[str, str]:
    return {task.name: task.revision for task in store.manifest.tasks}


def rewritten(place: Path, **keys: Any) -> Store:
    """The store with other keys in its manifest, as another program might have written it."""
    store = Store.open(place)
    return publish(store.files, store.manifest.model_copy(update=keys))


class TestRatios:
    def test_follow_the_number_of_tasks_beyond_the_slack(self) -> None:
        rule = RatioRule.of_budget(1, 19)
        assert rule.for_tasks(20, slack=1.06) is rule
        assert rule.for_tasks(20).compression_ratio == 1 / 20
        assert rule.for_tasks(21, slack=1.06).compression_ratio == 1 / 21

    def test_never_rise(self) -> None:
        assert RatioRule.of_budget(1, 20).for_tasks(2).compression_ratio == 1 / 20
        assert RatioRule.of_budget(4, 20).for_tasks(2).compression_ratio == 4 / 20

    def test_without_a_budget_are_what_they_are(self) -> None:
        assert RatioRule(compression_ratio=0.5).for_tasks(100).compression_ratio == 0.5


class TestGrowing:
    @pytest.mark.parametrize("ratio", ["1/T", "2/T", "0.75/T"])
    def test_a_grown_store_is_what_a_build_would_have_made(
        self, suite: Suite, tmp_path: Path, ratio: str
    ) -> None:
        options = BuildOptions(compression_ratio=ratio, format="bfloat16")
        build(suite.pretrained, suite.tasks[:1], tmp_path / "grown", options)
        for task in suite.tasks[1:]:
            add_task(tmp_path / "grown", task)
        grown = Store.open(tmp_path / "grown")
        built = build(suite.pretrained, suite.tasks, tmp_path / "built", options)
        assert grown.manifest.factoring == built.manifest.factoring
        for ours, theirs in zip(grown.manifest.tasks, built.manifest.tasks, strict=True):
            assert (ours.name, ours.rank, ours.ranks) == (theirs.name, theirs.rank, theirs.ranks)
            assert ours.energy_kept == pytest.approx(theirs.energy_kept, rel=1e-5)
            assert ours.distance == theirs.distance
            assert_same_experts(grown, built, ours.name)
            assert grown.files.read_bytes(ours.head_file) == built.files.read_bytes(theirs.head_file)
        assert block_bytes(grown) == block_bytes(built)
        assert grown.verify() == []

    def test_a_ratio_that_was_given_stays(self, suite: Suite, tmp_path: Path) -> None:
        build(suite.pretrained, suite.tasks[:2], tmp_path / "s", BuildOptions(compression_ratio=0.5))
        before = Store.open(tmp_path / "s")
        after = add_task(tmp_path / "s", suite.tasks[2])
        assert revisions(after).items() > revisions(before).items()
        assert ranks(after, "signs")[QKV] == 16

    def test_a_budget_in_bytes_is_kept_when_tasks_are_added(self, suite: Suite, tmp_path: Path) -> None:
        options = BuildOptions(budget="0.8x")
        build(suite.pretrained, suite.tasks[:2], tmp_path / "grown", options)
        grown = add_task(tmp_path / "grown", suite.tasks[2])
        built = build(suite.pretrained, suite.tasks, tmp_path / "built", options)
        for task in names(built):
            assert ranks(grown, task) == ranks(built, task)
            assert_same_experts(grown, built, task)
        rule, expected = grown.manifest.rank_rule, built.manifest.rank_rule
        assert isinstance(rule, BudgetRule)
        assert isinstance(expected, BudgetRule)
        assert rule.level == pytest.approx(expected.level, rel=1e-4)

    def test_what_keeps_less_stays_as_it_is(self, suite: Suite, tmp_path: Path) -> None:
        adapter = TaskInput("small", save_adapter(tmp_path / "adapter", suite.pretrained))
        build(suite.pretrained, [adapter, suite.tasks[0]], tmp_path / "s")
        before = Store.open(tmp_path / "s")
        after = add_task(tmp_path / "s", suite.tasks[1])
        assert after.task("small") == before.task("small")
        assert revisions(after)["digits"] != revisions(before)["digits"]
        assert [*after.manifest.history] == ["digits"]

    def test_a_replaced_task_is_not_cut_first(self, suite: Suite, store: Path) -> None:
        rewritten(store, ratio_budget=0.5)
        before = Store.open(store)
        after = add_task(store, suite.tasks[0], replace=True)
        assert after.manifest.compression_ratio == 0.25
        assert [entry.revision for entry in after.manifest.history["digits"]] == [revisions(before)["digits"]]
        assert ranks(after, "digits")[QKV] == ranks(after, "street")[QKV] == 8

    def test_five_hundredths_above_the_budget_are_no_reason_to_cut(self, suite: Suite, store: Path) -> None:
        rewritten(store, ratio_budget=0.96)
        before = Store.open(store)
        after = add_task(store, suite.tasks[0], replace=True)
        assert revisions(after)["street"] == revisions(before)["street"]
        assert compact_store(store).manifest.compression_ratio == 0.48

    def test_after_a_removal_the_ratio_stays(self, suite: Suite, store: Path) -> None:
        """Tasks of unlike ranks are told apart less well, and what was cut is gone."""
        add_task(store, suite.tasks[2])
        removed = remove_task(store, "signs")
        assert ranks(removed, "digits")[QKV] == 10
        before = Store.open(store)
        assert compact_store(store).manifest == before.manifest
        assert ranks(add_task(store, suite.tasks[2]), "signs")[QKV] == 10
        assert revisions(Store.open(store)).items() > revisions(before).items()

    def test_a_stored_merged_base_is_of_what_was_cut(self, suite: Suite, tmp_path: Path) -> None:
        build(suite.pretrained, suite.tasks[:2], tmp_path / "s", BuildOptions(merged_base="stored"))
        store = add_task(tmp_path / "s", suite.tasks[2])
        merged, experts = store.load_merged_base(), [store.load_experts(name) for name in names(store)]
        assert merged is not None
        for name, pretrained in store.load_pretrained().items():
            changes = [task.change(name) for task in experts]
            assert torch.equal(merged[name], merged_parameter(pretrained, changes))

    def test_a_task_of_tokens_is_cut_too(self, text_store: Path, tmp_path: Path) -> None:
        place = shutil.copytree(text_store, tmp_path / "s")
        before, after = Store.open(place), compact_store(place, "0.5/T")
        for name in ("guard", "names"):
            whole, cut = before.load_experts(name), after.load_experts(name)
            for parameter, found in cut.singular_vectors.items():
                vectors = unpacked(found)
                expected = unpacked(whole.singular_vectors[parameter].leading(vectors.rank))
                assert torch.equal(vectors.u, expected.u)
                assert torch.equal(vectors.vh, expected.vh)
        assert after.load_head("names").each_token


class TestCompacting:
    def test_cuts_to_a_ratio_and_back(self, store: Path) -> None:
        before = Store.open(store)
        after = compact_store(store, 0.25)
        assert (after.manifest.compression_ratio, after.manifest.ratio_budget) == (0.25, None)
        assert ranks(after, "digits")[QKV] == 8
        assert after.verify() == []
        assert not revisions(after).items() & revisions(before).items()
        back = rollback_task(store, "digits")
        assert ranks(back, "digits") == ranks(before, "digits")
        assert_same_experts(back, before, "digits")
        assert revisions(back)["digits"] == revisions(before)["digits"]

    def test_later_tasks_follow_the_new_rule(self, suite: Suite, store: Path) -> None:
        compact_store(store, 0.25)
        assert ranks(add_task(store, suite.tasks[2]), "signs")[QKV] == 8

    def test_a_store_within_its_budget_stays_as_it_is(self, store: Path) -> None:
        content = (store / "manifest.json").read_bytes()
        compact_store(store)
        assert (store / "manifest.json").read_bytes() == content

    def test_a_store_of_one_task(self, suite: Suite, tmp_path: Path) -> None:
        build(suite.pretrained, suite.tasks[:1], tmp_path / "s")
        before = Store.open(tmp_path / "s")
        assert compact_store(tmp_path / "s").manifest == before.manifest
        assert ranks(compact_store(tmp_path / "s", "0.5/T"), "digits")[QKV] == 16

    def test_a_store_without_a_budget_gets_one(self, suite: Suite, store: Path) -> None:
        """Of version 2 before there were budgets: it was grown by the ratio of its first tasks."""
        rewritten(store, ratio_budget=None)
        grown = add_task(store, suite.tasks[2])
        assert ranks(grown, "digits")[QKV] == ranks(grown, "signs")[QKV] == 16
        after = compact_store(store)
        assert (after.manifest.compression_ratio, after.manifest.ratio_budget) == (1 / 3, 1)
        assert {ranks(after, name)[QKV] for name in names(after)} == {10}

    def test_a_store_of_version_1(self, tmp_path: Path) -> None:
        shutil.copytree("tests/fixtures/store_v1/store", tmp_path / "old")
        before = Store.open(tmp_path / "old").manifest
        after = compact_store(tmp_path / "old", "0.25/T").manifest
        assert (before.format_version, after.ratio_budget) == (1, 0.25)
        assert json.loads((tmp_path / "old" / "manifest.json").read_bytes())["format_version"] == 2
        assert all(task.energy_kept is None for task in after.tasks)
        assert Store.open(tmp_path / "old").verify() == []

    def test_a_larger_budget_cuts_nothing(self, suite: Suite, store: Path) -> None:
        before = Store.open(store)
        after = compact_store(store, "4/T")
        assert revisions(after) == revisions(before)
        assert (after.manifest.compression_ratio, after.manifest.ratio_budget) == (1, 4)
        assert ranks(after, "digits") == ranks(before, "digits")
        assert ranks(add_task(store, suite.tasks[2]), "signs")[QKV] == 32

    @pytest.mark.parametrize("option", [{"rank": 5}, {"energy": 0.7}])
    def test_a_rule_of_each_task_has_no_budget(
        self, suite: Suite, tmp_path: Path, option: dict[str, Any]
    ) -> None:
        build(suite.pretrained, suite.tasks[:2], tmp_path / "s", BuildOptions(**option))
        with pytest.raises(StoreError, match=r"of each task for itself, and no budget .*give a compression"):
            compact_store(tmp_path / "s")
        after = compact_store(tmp_path / "s", 0.0625)
        assert {ranks(after, name)[QKV] for name in names(after)} == {2}
        assert after.manifest.rank_rule is None

    @pytest.mark.parametrize(
        ("ratio", "sentence"),
        [
            (0, "must be above 0 and at most 1"),
            (float("nan"), "must be above 0 and at most 1"),
            (1.5, "must be above 0 and at most 1"),
            ("x", "or a number above 0 over T, the number of tasks, such as 2/T, not x"),
            (0.03, r"ratio 0\.03 leaves less than one .* 32 x 32: give at least 0\.031"),
            ("0.06/T", r"ratio 0\.03 \(0\.06/T\) leaves less than one"),
        ],
    )
    def test_bad_ratios(self, store: Path, ratio: float | str, sentence: str) -> None:
        before = Store.open(store)
        with pytest.raises(StoreError, match=sentence):
            compact_store(store, ratio)
        assert Store.open(store).manifest == before.manifest

    def test_of_a_store_that_another_process_writes(self, store: Path) -> None:
        with open_files(store).lock(), pytest.raises(StoreLockedError, match="another process is writing"):
            compact_store(store, 0.25)

    def test_a_damaged_task_ends_it_and_leaves_no_file(self, store: Path) -> None:
        opened = Store.open(store)
        files = set(opened.files.list())
        place = store / opened.task("street").experts_file
        place.write_bytes(place.read_bytes()[:-1])
        with pytest.raises(IntegrityError, match="tasks/street"):
            compact_store(store, 0.25)
        assert Store.open(store).manifest == opened.manifest
        assert set(opened.files.list()) - {".lock"} == files - {".lock"}

    def test_pruning_gives_the_room_back(self, store: Path) -> None:
        before = sum(Store.open(store).files.size(path) for path in Store.open(store).manifest.all_files())
        compact_store(store, 0.0625)
        prune_store(store)
        pruned = Store.open(store)
        assert pruned.verify() == []
        assert sum(pruned.files.size(path) for path in pruned.files.list()) < before

    def test_a_remote_store(self, suite: Suite) -> None:
        place = "memory://compacted"
        build(suite.pretrained, suite.tasks[:2], place)
        assert ranks(add_task(place, suite.tasks[2]), "digits")[QKV] == 10
        after = compact_store(place, 0.125)
        assert ranks(after, "digits")[QKV] == 4
        assert after.verify() == []
