"""Ranks that a store chooses by rule, and those that tasks have of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mass_serve.merging import DenseDelta, merged_parameter
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import IntegrityError, ManifestError, StoreError
from mass_serve.model_store.format.block_formats import unpacked
from mass_serve.model_store.format.manifest import Manifest, parse_manifest
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.rank_budget import SPECTRA
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.revisions import add_task, remove_task, rollback_task
from mass_serve.model_store.store import Store
from tests.model_store.readers.test_adapters import save_adapter
from tests.models import Suite

QKV = "blocks.0.attention.qkv.weight"
ENERGY = BuildOptions(energy=0.7)
RULES: dict[str, dict[str, Any]] = {
    "rank": {"rank": 5},
    "energy": {"energy": 0.7},
    "budget": {"budget": "0.8x"},
}


@pytest.fixture(scope="module")
def adapter(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> TaskInput:
    """An adapter of rank 2 of one matrix."""
    return TaskInput("small", save_adapter(tmp_path_factory.mktemp("adapter") / "small", suite.pretrained))


def spectra(suite: Suite, task: TaskInput) -> dict[str, torch.Tensor]:
    """The squared singular values of what a whole model changed, by matrix."""
    base, finetuned = Checkpoint.open(suite.pretrained), Checkpoint.open(task.checkpoint)
    return {
        name: torch.linalg.svdvals(
            finetuned.parameter(name).double() - base.parameter(name).double()
        ).square()
        for name in base.architecture.matrix_shapes()
    }


def ranks(store: Store, task: str) -> dict[str, int]:
    return dict(store.layout.ranks_of(store.task(task)))


def block_bytes(store: Store) -> int:
    """What u, s and vh of all tasks take, by the headers of their files."""
    size = 0
    for task in store.manifest.tasks:
        with store.experts_file(task) as experts:
            for name, spec in experts.specs.items():
                if spec.dtype is not None and not name.endswith(".delta"):
                    size += torch.Size(spec.shape).numel() * spec.dtype.itemsize
    return size


class TestRules:
    def test_the_same_rank_wherever_the_matrix_has_it(self, suite: Suite, tmp_path: Path) -> None:
        store = build(suite.pretrained, suite.tasks[:1], tmp_path / "out", BuildOptions(rank=20))
        found = ranks(store, "digits")
        # 17 positions, and a projection on 16 numbers.
        assert (found["position_embedding.weight"], found["projection.weight"], found[QKV]) == (17, 16, 20)
        entry = store.task("digits")
        assert (entry.rank, entry.ranks) == (20, None)  # they follow from the rule
        assert len(store.load_experts("digits").singular_vectors[QKV].s) == 20

    @pytest.mark.parametrize("share", [0.3, 0.95, 1.0])
    def test_the_smallest_ranks_that_keep_a_share_of_the_energy(
        self, suite: Suite, tmp_path: Path, share: float
    ) -> None:
        store = build(suite.pretrained, suite.tasks[:2], tmp_path / "out", BuildOptions(energy=share))
        for task in suite.tasks[:2]:
            entry, found = store.task(task.name), ranks(store, task.name)
            assert entry.ranks == found
            assert entry.rank == max(found.values())
            assert entry.energy_kept is not None
            assert entry.energy_kept >= share - 1e-3  # the vectors themselves are kept by a bound
            for name, energies in spectra(suite, task).items():
                kept = energies.cumsum(0) / energies.sum()
                rank = found[name]
                assert kept[rank - 1] >= share - 1e-9
                assert rank == 1 or kept[rank - 2] < share

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
    def test_a_budget_is_spent_on_what_says_most(self, suite: Suite, tmp_path: Path, dtype: str) -> None:
        options = BuildOptions(budget="0.8x", block_dtype=dtype)  # type: ignore[arg-type]
        store = build(suite.pretrained, suite.tasks, tmp_path / "out", options)
        parameters = store.load_pretrained().values()
        budget = 0.8 * sum(tensor.nbytes for tensor in parameters)
        largest = 4 * (96 + 32) + 4  # of a triplet of qkv or of the MLP
        assert budget - largest < block_bytes(store) <= budget
        kept, left_out = [], []
        for task in suite.tasks:
            found, distance = ranks(store, task.name), store.task(task.name).distance
            assert distance is not None
            for name, energies in spectra(suite, task).items():
                item = 2 if dtype == "bfloat16" else 4
                worth = (
                    energies
                    / distance**2
                    / (sum(Checkpoint.open(suite.pretrained).parameter(name).shape) * item + 4)
                )
                kept += worth[: found[name]].tolist()
                left_out += worth[found[name] :].tolist()
        assert min(kept) > max(left_out) * (1 - 1e-6)

    @pytest.mark.parametrize(
        ("given", "ratio", "budget"),
        [("2/T", 2 / 3, 2), ("0.75/T", 0.25, 0.75), ("5/T", 1, 5), ("0.25", 0.25, None)],
    )
    def test_a_ratio_may_follow_from_the_number_of_tasks(
        self, suite: Suite, tmp_path: Path, given: str, ratio: float, budget: float | None
    ) -> None:
        store = build(suite.pretrained, suite.tasks, tmp_path / "out", BuildOptions(compression_ratio=given))
        assert (store.manifest.compression_ratio, store.manifest.ratio_budget) == (ratio, budget)
        assert ranks(store, "digits")[QKV] == int(32 * ratio)
        said = f"compression ratio {ratio:.4g}" + (f" ({budget:g}/T)" if budget else "")
        assert str(store.manifest.factoring.rule) == said
        assert parse_manifest(store.manifest.to_bytes()) == store.manifest

    def test_a_large_budget_keeps_everything(self, suite: Suite, tmp_path: Path) -> None:
        store = build(suite.pretrained, suite.tasks[:1], tmp_path / "out", BuildOptions(budget="100x"))
        shapes = store.manifest.backbone.matrix_shapes()
        assert ranks(store, "digits") == {name: min(shape) for name, shape in shapes.items()}

    def test_a_model_that_changed_nothing_keeps_nothing(self, suite: Suite, tmp_path: Path) -> None:
        same = TaskInput(
            "same",
            suite.pretrained,
            suite.tasks[0].checkpoint / "head.safetensors",
            suite.tasks[0].checkpoint / "labels.json",
        )
        for rule in ("energy", "budget"):
            out = tmp_path / rule
            store = build(suite.pretrained, [same], out, BuildOptions(**RULES[rule]))
            assert (store.task("same").rank, store.verify()) == (0, [])
            assert not any(ranks(store, "same").values())

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"rank": 0}, "the rank must be from 1 to 65536, not 0"),
            ({"rank": 65_537}, "the rank must be from 1 to 65536"),
            ({"energy": 0.0}, "the energy must be above 0 and at most 1, not 0.0"),
            ({"energy": 1.1}, "the energy must be above 0 and at most 1"),
            ({"energy": float("nan")}, "the energy must be above 0 and at most 1"),
            *(
                ({"budget": text}, "the budget must be a number above 0 with an x behind it, such as 1.3x")
                for text in (
                    "",
                    "x",
                    "1.3",
                    "0x",
                    "0.0x",
                    "-1x",
                    "1e3x",
                    "nanx",
                    "infx",
                    "1,3x",
                    "9999999x",
                    "1x ",
                )
            ),
            (
                {"budget": "0.0001x"},
                "the budget is 9 bytes, and one singular vector of the largest matrix takes 116: give",
            ),
            ({"rank": 4, "energy": 0.5}, "rank and energy choose the ranks in different ways: give one"),
            ({"compression_ratio": 0.5, "budget": "1x"}, "compression_ratio and budget choose the ranks"),
        ],
    )
    def test_what_is_no_rule_is_refused(
        self, suite: Suite, tmp_path: Path, options: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(StoreError, match=sentence):
            build(suite.pretrained, suite.tasks[:1], tmp_path / "out", BuildOptions(**options))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rule", RULES)
class TestStoresOfEveryRule:
    def test_the_same_build_is_the_same_bytes(
        self, suite: Suite, adapter: TaskInput, tmp_path: Path, rule: str
    ) -> None:
        stores = [
            build(suite.pretrained, [*suite.tasks[:2], adapter], tmp_path / name, BuildOptions(**RULES[rule]))
            for name in ("first", "second")
        ]
        manifests = [(store.files.read_bytes("manifest.json"), store.verify()) for store in stores]
        assert manifests[0] == manifests[1] == (manifests[0][0], [])
        assert json.loads(manifests[0][0])["format_version"] == 2

    def test_an_added_task_is_chosen_for_as_those_before(
        self, suite: Suite, adapter: TaskInput, tmp_path: Path, rule: str
    ) -> None:
        built = build(suite.pretrained, suite.tasks, tmp_path / "all", BuildOptions(**RULES[rule]))
        build(suite.pretrained, suite.tasks[:2], tmp_path / "grown", BuildOptions(**RULES[rule]))
        grown = add_task(tmp_path / "grown", suite.tasks[2])
        if rule != "budget":  # whose level depends on the tasks that it was found with
            assert grown.task("signs").ranks == built.task("signs").ranks
        assert grown.manifest.rank_rule is not None
        assert ranks(add_task(tmp_path / "grown", adapter), "small")[QKV] <= 2
        removed = remove_task(tmp_path / "grown", "signs")
        assert removed.verify() == []
        assert rollback_task(tmp_path / "grown", "signs").task("signs") == grown.task("signs")

    def test_a_merged_base_is_stored_of_any_ranks(
        self, suite: Suite, adapter: TaskInput, tmp_path: Path, rule: str
    ) -> None:
        options = BuildOptions(merged_base="stored", **RULES[rule])
        store = build(suite.pretrained, [adapter, suite.tasks[0]], tmp_path / "out", options)
        merged, pretrained = store.load_merged_base(), store.load_pretrained()
        assert merged is not None
        experts = [store.load_experts(task.name) for task in store.manifest.tasks]
        for name, tensor in pretrained.items():
            expected = merged_parameter(tensor, [expert.change(name) for expert in experts])
            assert torch.equal(merged[name], expected)

    def test_is_taken_up_where_it_was_interrupted(self, suite: Suite, tmp_path: Path, rule: str) -> None:
        options, out = BuildOptions(**RULES[rule]), tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            build(suite.pretrained, suite.tasks[:2], out, options, interrupt_at("factoring street"))
        stages: list[str] = []
        store = build(suite.pretrained, suite.tasks[:2], out, options, lambda stage, *_: stages.append(stage))
        assert not {SPECTRA, "factoring digits"} & {*stages}
        assert store.verify() == []
        whole = build(suite.pretrained, suite.tasks[:2], tmp_path / "whole", options)
        assert whole.manifest == store.manifest


def interrupt_at(stage: str) -> Callable[[str, int, int], None]:
    def progress(current: str, *_: int) -> None:
        if current == stage:
            raise KeyboardInterrupt

    return progress


class TestAdapters:
    def test_has_its_own_rank_where_it_is_below_the_stores(
        self, suite: Suite, adapter: TaskInput, tmp_path: Path
    ) -> None:
        store = build(suite.pretrained, [adapter, suite.tasks[0]], tmp_path / "out")
        entry = store.task("small")
        assert entry.ranks == {name: 2 if name == QKV else 0 for name in store.manifest.factored_parameters}
        assert entry.rank == 2
        assert entry.energy_kept == pytest.approx(1.0, abs=1e-6)
        assert store.task("digits").ranks is None
        assert store.manifest.compression_ratio == 0.5
        experts = store.load_experts("small")
        assert experts.singular_vectors["blocks.1.mlp.fc2.weight"].rank == 0
        assert store.verify() == []

    def test_is_cut_to_the_stores_where_that_is_below(
        self, suite: Suite, adapter: TaskInput, tmp_path: Path
    ) -> None:
        store = build(suite.pretrained, [adapter, suite.tasks[0]], tmp_path / "out", BuildOptions(rank=1))
        assert ranks(store, "small")[QKV] == 1
        # What is left of it does not tell that it is one.
        assert json.loads(store.files.read_bytes("manifest.json"))["tasks"][0]["adapter"] is True
        assert [task.adapter for task in store.manifest.tasks] == [True, False]

    def test_is_the_decomposition_of_the_dense_change(
        self, suite: Suite, adapter: TaskInput, tmp_path: Path
    ) -> None:
        store = build(suite.pretrained, [adapter], tmp_path / "out", BuildOptions(block_dtype="float32"))
        base = Checkpoint.open(suite.pretrained)
        tuned = base.adapted(adapter.checkpoint)
        vectors = unpacked(store.load_experts("small").singular_vectors[QKV])
        dense = tuned.parameter(QKV).double() - base.parameter(QKV).double()
        torch.testing.assert_close(((vectors.u * vectors.s) @ vectors.vh).double(), dense, atol=1e-6, rtol=0)
        # The rows of k and v were left alone, to the last bit.
        assert not vectors.u[32:].any()

    def test_has_its_own_rank_over_the_stores_own_encoder(self, store: Path, tmp_path: Path) -> None:
        """Where the folder that it names is not on this machine."""
        lost = TaskInput("lost", save_adapter(tmp_path / "lost", Path("org/clip")))
        entry = add_task(store, lost, force=True).task("lost")
        assert entry.ranks is not None
        assert {name: rank for name, rank in entry.ranks.items() if rank} == {QKV: 2}

    def test_of_another_base_is_measured_as_a_whole(self, suite: Suite, store: Path, tmp_path: Path) -> None:
        """What the store has of its base is not that of the adapter: the difference is a change, too."""
        other = TaskInput("other", save_adapter(tmp_path / "other", suite.tasks[1].checkpoint))
        entry = add_task(store, other).task("other")
        assert entry.ranks is None
        assert entry.distance is not None
        assert entry.distance > 0.5 * (Store.open(store).task("street").distance or 1)


@pytest.fixture(scope="module")
def content(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of a store that keeps a share of the energy."""
    store = build(suite.pretrained, suite.tasks[:1], tmp_path_factory.mktemp("energy") / "out", ENERGY)
    read: dict[str, Any] = json.loads(store.files.read_bytes("manifest.json"))
    return read


class TestManifests:
    @staticmethod
    def parse(content: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> Manifest:
        changed = json.loads(json.dumps(content))
        change(changed)
        return parse_manifest(json.dumps(changed).encode())

    def test_says_its_rule_and_ranks(self, content: dict[str, Any]) -> None:
        assert "compression_ratio" not in content
        assert content["rank_rule"] == {"kind": "energy", "share": 0.7}
        assert [*content["tasks"][0]["ranks"]] == content["factored_parameters"]
        manifest = parse_manifest(json.dumps(content).encode())
        assert json.loads(manifest.to_bytes()) == content
        assert str(manifest.factoring.rule) == "energy 0.7"

    @pytest.mark.parametrize(
        "rule",
        [{"kind": "rank", "rank": 8}, {"kind": "budget", "times": 1.3, "level": 2.5e-7}],
    )
    def test_other_rules(self, content: dict[str, Any], rule: dict[str, Any]) -> None:
        manifest = self.parse(content, lambda m: m.update(rank_rule=rule))
        assert json.loads(manifest.to_bytes())["rank_rule"] == rule

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                lambda m: m["tasks"][0]["ranks"].update({QKV: 33}),
                f"digits has rank 33 for {QKV}, whose shape is",
            ),
            (lambda m: m["tasks"][0]["ranks"].update({QKV: -1}), "greater than or equal to 0"),
            (lambda m: m["tasks"][0]["ranks"].update({QKV: 1.0}), "valid integer"),
            (lambda m: m["tasks"][0]["ranks"].update({QKV: 1 << 70}), "less than or equal to 65536"),
            (
                lambda m: m["tasks"][0]["ranks"].update(x=1),
                "digits must have ranks of the factored parameters",
            ),
            (lambda m: m["tasks"][0]["ranks"].pop(QKV), "digits must have ranks of the factored parameters"),
            (lambda m: m["tasks"][0].update(ranks={}), "digits must have ranks of the factored parameters"),
            (
                lambda m: m["tasks"][0].pop("ranks"),
                "digits must have ranks, for the energy 0.7 prescribes none",
            ),
            (lambda m: m["tasks"][0].update(rank=1), "digits has rank 1, the largest of its ranks is"),
            (
                lambda m: m.update(compression_ratio=0.5),
                "rank_rule: must not be there beside a compression_ratio",
            ),
            (
                lambda m: m.update(ratio_budget=1),
                "ratio_budget: must not be there without a compression_ratio",
            ),
            (lambda m: m.pop("rank_rule"), "compression_ratio: Field required, or a rank_rule in its place"),
            (lambda m: m["rank_rule"].update(kind="taste"), "rank_rule: Input tag 'taste'"),
            (lambda m: m["rank_rule"].update(share=0), r"rank_rule\.energy\.share: .*greater than 0"),
            (
                lambda m: m["rank_rule"].update(share=1.01),
                r"rank_rule\.energy\.share: .*less than or equal to 1",
            ),
            (lambda m: m["rank_rule"].update(level=1), r"rank_rule\.energy\.level: Extra inputs"),
            (
                lambda m: m.update(rank_rule={"kind": "rank", "rank": 0}),
                "rank.rank: .*greater than or equal to 1",
            ),
            (
                lambda m: m.update(rank_rule={"kind": "budget", "times": 1.3}),
                r"rank_rule\.budget\.level: Field required",
            ),
            (
                lambda m: m.update(rank_rule={"kind": "budget", "times": 0, "level": 1}),
                r"rank_rule\.budget\.times: .*greater than 0",
            ),
            (
                lambda m: m.update(rank_rule={"kind": "budget", "times": 1.3, "level": 1e300}),
                r"rank_rule\.budget\.level: .*less than or equal to 1",
            ),
        ],
    )
    def test_all_else_is_refused(
        self, content: dict[str, Any], change: Callable[[dict[str, Any]], object], sentence: str
    ) -> None:
        with pytest.raises(ManifestError, match=f"manifest.json is not valid: .*{sentence}"):
            self.parse(content, change)

    def test_version_1_cannot_say_it(self, content: dict[str, Any]) -> None:
        def of_version_1(manifest: dict[str, Any]) -> None:
            backbone = manifest["backbone"]
            flat = {
                "family": "clip_vision",
                "image_size": backbone["embedding"]["image_size"],
                "patch_size": backbone["embedding"]["patch_size"],
                **{key: backbone["block"][key] for key in ("width", "num_attention_heads", "mlp_width")},
                "depth": backbone["depth"],
                "activation": backbone["block"]["activation"],
                "layer_norm_eps": backbone["block"]["layer_norm_eps"],
                "projection_dim": backbone["pooling"]["projection_dim"],
            }
            manifest.update(format_version=1, backbone=flat)
            for key in ("distance", "energy_kept"):
                del manifest["tasks"][0][key]

        with pytest.raises(ManifestError, match="it says what format version 2 has come with"):
            self.parse(content, of_version_1)

    def test_a_file_of_other_ranks_is_refused_before_it_is_read(self, suite: Suite, tmp_path: Path) -> None:
        store = build(suite.pretrained, suite.tasks[:1], tmp_path / "out", ENERGY)
        entry = store.task("digits")
        assert entry.ranks is not None
        more = entry.ranks | {QKV: entry.ranks[QKV] + 1}
        entry = entry.model_copy(update={"ranks": more, "rank": max(more.values())})
        other = Store(store.files, store.manifest.model_copy(update={"tasks": (entry,)}))
        with pytest.raises(
            IntegrityError, match=rf"does not fit the manifest: {QKV}\.u_t has shape \[\d+, 48\]"
        ):
            other.load_experts("digits")


def test_biases_are_kept_whole_whatever_the_rule(suite: Suite, tmp_path: Path) -> None:
    store = build(suite.pretrained, suite.tasks[:1], tmp_path / "out", BuildOptions(rank=1))
    change = store.load_experts("digits").change("blocks.0.mlp.fc1.bias")
    assert isinstance(change, DenseDelta)
    assert change.values.any()
