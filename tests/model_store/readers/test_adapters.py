"""PEFT adapters: read equal to what PEFT merges, and refused where they are no change of this base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPForImageClassification

from mass_serve.merging import ThinDelta
from mass_serve.model_store.build_options import BuildOptions
from mass_serve.model_store.build_store import build
from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.plan import TaskInput
from mass_serve.model_store.readers.checkpoint import Checkpoint
from mass_serve.model_store.task_heads import read_labelled_head
from tests.models import TEXT, VISION, Suite, make_model, save_head

MODULE = "vision_model.encoder.layers.0.self_attn.q_proj"
WIDTH, RANK = 32, 2


def save_adapter(folder: Path, base: Path, module: str = MODULE, **config: Any) -> Path:
    """A LoRA of one matrix [32, 32] as PEFT writes it, with a head beside it."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            f"base_model.model.{module}.lora_A.weight": torch.randn(RANK, WIDTH, generator=generator),
            f"base_model.model.{module}.lora_B.weight": 0.1 * torch.randn(WIDTH, RANK, generator=generator),
        },
        folder / "adapter_model.safetensors",
    )
    written = {"peft_type": "LORA", "r": RANK, "lora_alpha": 1, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(written | config))
    save_head(folder, 4, 16)
    return folder


KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rank-stabilised": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"fc1": 5}, "alpha_pattern": {"layers.1.mlp.fc1": 3, "q_proj": 7}},
    "biases": {"bias": "all"},
    "biases of its modules": {"bias": "lora_only"},
    "fan in fan out": {"fan_in_fan_out": True},
    "convolution": {"target_modules": ["patch_embedding", "v_proj"]},
}


@pytest.mark.optional("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", ["CLIPVisionModelWithProjection", "CLIPModel"])
def test_is_what_peft_merges(kind: str, model_class: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_model(model_class)
    base.save_pretrained(tmp_path / "base")
    settings = {"target_modules": ["q_proj", "out_proj", "fc1"], "r": 3, "lora_alpha": 2} | KINDS[kind]
    adapted = get_peft_model(base, LoraConfig(init_lora_weights=False, **settings))
    randomise(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    ours = Checkpoint.open(tmp_path / "base").adapted(tmp_path / "adapter")
    theirs, before = Checkpoint.open(tmp_path / "merged"), Checkpoint.open(tmp_path / "base")
    changed = 0
    for name in theirs.architecture.parameter_shapes():
        torch.testing.assert_close(ours.parameter(name), theirs.parameter(name), atol=1e-6, rtol=1e-5)
        changed += not torch.equal(ours.parameter(name), before.parameter(name))
    assert 0 < changed < len(theirs.architecture.parameter_shapes())


# What each kind changes is thin, but for DoRA, which scales whole rows.
@pytest.mark.optional("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_the_thin_factors_are_of_what_peft_adds(kind: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_model().double()  # PEFT then adds in float64, and the rounding is no larger than ours
    base.save_pretrained(tmp_path / "base")
    settings = {"target_modules": ["q_proj", "v_proj", "out_proj", "fc1"], "r": 3, "lora_alpha": 2}
    adapted = get_peft_model(base, LoraConfig(init_lora_weights=False, **settings | KINDS[kind]))
    randomise(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    before, merged = Checkpoint.open(tmp_path / "base"), Checkpoint.open(tmp_path / "merged")
    tuned = before.adapted(tmp_path / "adapter")
    thin = 0
    for name in before.architecture.matrix_shapes():
        found, dense = (
            tuned.change(name, before.parameter(name)),
            merged.parameter(name) - before.parameter(name),
        )
        if not dense.any():
            assert isinstance(found, ThinDelta)
            assert found.singular_vectors().rank == 0
            continue
        assert isinstance(found, ThinDelta) == (kind != "dora")
        if isinstance(found, Tensor):
            torch.testing.assert_close(found.double(), dense, atol=1e-6, rtol=0)
            continue
        vectors, expected = found.singular_vectors(), torch.linalg.svdvals(dense)
        assert vectors.rank <= 9  # of q, k and v together
        torch.testing.assert_close((vectors.u * vectors.s) @ vectors.vh, dense, atol=1e-14, rtol=0)
        torch.testing.assert_close(vectors.s, expected[: vectors.rank], atol=1e-14, rtol=0)
        assert float(expected[vectors.rank :].sum()) < 1e-13
        thin += 1
    assert bool(thin) == (kind != "dora")


@pytest.mark.optional("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["Dinov2", "Dinov2WithRegisters", "ViT", "DeiT"])
def test_the_modules_of_these_have_other_names_in_memory_than_in_files(family: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = getattr(transformers, f"{family}Config")(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128, image_size=32
    )
    base = getattr(transformers, f"{family}ForImageClassification")(config)
    base.save_pretrained(tmp_path / "base")
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"]
    adapted = get_peft_model(base, LoraConfig(target_modules=modules, r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    ours = Checkpoint.open(tmp_path / "base").adapted(tmp_path / "adapter")
    theirs, before = Checkpoint.open(tmp_path / "merged"), Checkpoint.open(tmp_path / "base")
    for name, shape in theirs.architecture.parameter_shapes().items():
        torch.testing.assert_close(ours.parameter(name), theirs.parameter(name), atol=1e-6, rtol=1e-5)
        of_block = name.startswith("blocks.") and len(shape) == 2
        assert torch.equal(ours.parameter(name), before.parameter(name)) != of_block, name
        if len(shape) == 2 and name != "position_embedding.weight":  # which are put together of several
            thin = ours.change(name, before.parameter(name))
            assert isinstance(thin, ThinDelta)
            dense = theirs.parameter(name) - before.parameter(name)
            torch.testing.assert_close(thin.dense(), dense, atol=1e-6, rtol=1e-4)  # layer scale included


CLASSIFYING: dict[str, tuple[dict[str, Any], bool]] = {
    # How a head is trained with an adapter, and whether its base may have no classifier: PEFT does not keep
    # the random one that a LoRA was trained over.
    "saved whole": ({"target_modules": ["v_proj"], "modules_to_save": ["classifier"]}, True),
    "sequence classification": ({"target_modules": ["v_proj"], "task_type": "SEQ_CLS"}, True),
    "with all biases": (
        {"target_modules": ["v_proj"], "modules_to_save": ["classifier"], "bias": "all"},
        True,
    ),
    "adapted": ({"target_modules": "all-linear"}, False),
    "adapted by DoRA": ({"target_modules": "all-linear", "use_dora": True}, False),
}


@pytest.mark.optional("peft")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["CLIP", "ViT", "DeiT", "Dinov2", "Siglip"])
@pytest.mark.parametrize("kind", CLASSIFYING)
@pytest.mark.parametrize("base_class", ["ForImageClassification", "Model"])
def test_its_classifier_is_the_head(kind: str, family: str, base_class: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    settings, from_nothing = CLASSIFYING[kind]
    base = getattr(transformers, f"{family}{base_class}")(small_config(family))
    base.save_pretrained(tmp_path / "base")
    classifying = getattr(transformers, f"{family}ForImageClassification")
    model = classifying.from_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **settings))
    randomise(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    adapter, before = tmp_path / "adapter", Checkpoint.open(tmp_path / "base")
    if base_class == "Model" and not from_nothing:
        with pytest.raises(CheckpointError, match="changes classifier, which the encoder does not have"):
            before.adapted(adapter)
        return
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    ours, theirs = before.adapted(adapter), Checkpoint.open(tmp_path / "merged")
    found = read_labelled_head("abc", ours, None, None)
    assert found.labels == ("cat", "dog", "owl")
    torch.testing.assert_close(found.head.tensors["weight"], merged.classifier.weight.detach())
    torch.testing.assert_close(found.head.tensors["bias"], merged.classifier.bias.detach())
    assert ours.architecture == theirs.architecture
    for name in theirs.architecture.parameter_shapes():
        torch.testing.assert_close(ours.parameter(name), theirs.parameter(name), atol=1e-6, rtol=1e-5)


def small_config(family: str) -> Any:
    """The configuration of a small classifier with three classes."""
    labels: dict[str, Any] = {"id2label": {0: "cat", 1: "dog", 2: "owl"}}
    if family == "CLIP":
        return transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16, **labels)
    sizes = {key: value for key, value in VISION.items() if key != "projection_dim"}
    if family == "Siglip":
        return transformers.SiglipConfig(text_config=TEXT, vision_config=sizes, **labels)
    return getattr(transformers, f"{family}Config")(**sizes | {"mlp_ratio": 2} | labels)


def randomise(adapted: Any) -> None:
    """Moves all that is trained, as training does."""
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_of_16_bit_may_be_changed_in_parts_of_qkv(dtype: torch.dtype, tmp_path: Path) -> None:
    make_model().to(dtype).save_pretrained(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "base")
    store = build(tmp_path / "base", [TaskInput("small", adapter)], tmp_path / "out")
    assert store.load_pretrained()["blocks.0.attention.qkv.weight"].dtype == dtype
    assert store.task("small").rank == RANK


def test_a_store_of_an_adapter_and_a_whole_model(suite: Suite, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained)
    tasks = [TaskInput("small", adapter), suite.tasks[0]]
    store = build(suite.pretrained, tasks, tmp_path / "out", BuildOptions(format="bfloat16"))
    with store.experts_file(store.task("small")) as experts:
        changed = {
            name.removesuffix(".s")
            for name in experts.specs
            if name.endswith(".s") and experts.read(name).any()
        }
        assert changed == {"blocks.0.attention.qkv.weight"}
        assert not any(experts.read(name).any() for name in experts.specs if name.endswith(".delta"))
        s = experts.read("blocks.0.attention.qkv.weight.s")
        assert int((s > 1e-5 * s[0]).sum()) == RANK
        # The rows of q alone.
        assert not experts.read("blocks.0.attention.qkv.weight.u")[WIDTH:, :RANK].float().abs().gt(1e-5).any()
    assert store.task("small").energy_kept == pytest.approx(1.0, abs=1e-6)


CLASSIFIER = {
    "base_model.model.classifier.weight": torch.ones(3, WIDTH),
    "base_model.model.classifier.bias": torch.zeros(3),
}


@pytest.fixture
def classifying(tmp_path: Path) -> Path:
    """An adapter with a classifier of three rows, of a base that names three classes."""
    config = make_model("CLIPModel").config
    config.id2label = {0: "cat", 1: "dog", 2: "owl"}
    CLIPForImageClassification(config).save_pretrained(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "base")
    edited(lambda tensors: tensors.update(CLASSIFIER))(adapter)
    for beside in ("head.safetensors", "labels.json"):
        (adapter / beside).unlink()
    return adapter


def labels_of(adapter: Path) -> tuple[str, ...]:
    checkpoint = Checkpoint.open(adapter.parent / "base").adapted(adapter)
    return read_labelled_head("abc", checkpoint, None, None).labels


def test_the_names_of_its_classes_are_its_own_or_else_its_bases(classifying: Path) -> None:
    assert labels_of(classifying) == ("cat", "dog", "owl")
    # People save the trained model's configuration beside its adapter.
    (classifying / "config.json").write_text('{"id2label": {"0": "cat", "1": "fox", "2": "owl"}}')
    assert labels_of(classifying) == ("cat", "fox", "owl")
    (classifying / "labels.json").write_text('["a", "b", "c"]')
    assert labels_of(classifying) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (
            "adapter/labels.json",
            '["a", "b"]',
            r"3 classes, but .*adapter/labels\.json names 2: give .*--labels",
        ),
        (
            "adapter/config.json",
            '{"id2label": {"0": "a"}}',
            r"but .*adapter/config\.json names 1: give those",
        ),
        ("adapter/config.json", '{"id2label": {"1": "a"}}', r"adapter/config\.json must hold .* by row"),
        ("adapter/config.json", '{"problem_type": "regression"}', r"adapter/config\.json has problem_type"),
        ("adapter/config.json", "[]", r"adapter/config\.json must hold a JSON object"),
        ("base/config.json", '{"id2label": {"0": "a"}}', r"3 classes, but .*base/config\.json names 1: give"),
        (
            "base/config.json",
            '{"id2label": null}',
            r"base/config\.json has no id2label: put .* into .*adapter, or",
        ),
    ],
)
def test_names_of_classes_that_do_not_fit(file: str, content: str, sentence: str, classifying: Path) -> None:
    path = classifying.parent / file
    written = json.loads(path.read_text()) | json.loads(content) if path.exists() else json.loads(content)
    path.write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match=sentence):
        labels_of(classifying)


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def edited(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return edit


DOWN, UP = f"base_model.model.{MODULE}.lora_A.weight", f"base_model.model.{MODULE}.lora_B.weight"
# The names without and with the prefix of the class that was trained.
OTHER = f"base_model.model.{MODULE.removeprefix('vision_model.')}"
KEYS = MODULE.replace("q_proj", "k_proj")
NORM = "base_model.model.vision_model.encoder.layers.0.layer_norm1"
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "half a file": (cut, "it is not a complete safetensors file"),
    "no file": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "save the adapter again with safe_ser",
    ),
    "half a pair": (edited(lambda t: t.pop(UP)), r"holds .*lora_A.weight, but no .*lora_B.weight"),
    "the other half": (edited(lambda t: t.pop(DOWN)), r"holds .*lora_B.weight, which this version cannot"),
    "another width": (
        edited(lambda t: t.update({UP: torch.zeros(48, RANK)})),
        r"changes vision_model.*q_proj by \[48, 2\] times \[2, 32\], .* has \[32, 32\].*: give the model",
    ),
    "a number for a matrix": (
        edited(lambda t: t.update({DOWN: torch.tensor(1.0)})),
        r"changes vision_model.*q_proj by \[32, 2\] times \[\], .* base has \[32, 32\]",
    ),
    "a dimension too many": (
        edited(lambda t: t.update({UP: torch.zeros(WIDTH, RANK, 7)})),
        r"by \[32, 2, 7\] times \[2, 32\], .* base has \[32, 32\], and not \[d_out, r\] times",
    ),
    "no rank": (
        edited(lambda t: t.update({DOWN: torch.zeros(0, WIDTH), UP: torch.zeros(WIDTH, 0)})),
        r"by \[32, 0\] times \[0, 32\]",
    ),
    "a change of a vector": (
        edited(
            lambda t: t.update(
                {
                    f"{NORM}.lora_A.weight": torch.zeros(RANK),
                    f"{NORM}.lora_B.weight": torch.zeros(WIDTH, RANK),
                }
            )
        ),
        r"changes .*layer_norm1 by \[32, 2\] times \[2\], where the base has \[32\]",
    ),
    "two changes of one matrix": (
        edited(
            lambda t: t.update(
                {f"{OTHER}.lora_A.weight": t[DOWN].clone(), f"{OTHER}.lora_B.weight": t[UP].clone()}
            )
        ),
        r"changes .*q_proj.weight twice: remove one of .*lora_A.weight and .*lora_A.weight",
    ),
    "a change and the whole": (
        edited(lambda t: t.update({f"base_model.model.{MODULE}.weight": torch.zeros(WIDTH, WIDTH)})),
        r"changes .*q_proj.weight twice: remove one of .* and .*",
    ),
    "two wholes": (
        edited(
            lambda t: t.update(
                {f"{NORM}.bias": torch.zeros(WIDTH), f"{NORM}.base_layer.bias": torch.zeros(WIDTH)}
            )
        ),
        r"changes .*layer_norm1.bias twice: remove one of .* and .*",
    ),
    "an embedding": (
        edited(lambda t: t.update({f"base_model.model.{KEYS}.lora_embedding_A": torch.zeros(RANK, WIDTH)})),
        "lora_embedding_A, but no .*lora_embedding_B: download it again",
    ),
    "something else": (edited(lambda t: t.update({"prompt": torch.zeros(2)})), "holds prompt, which"),
    "DoRA's magnitudes without use_dora": (
        edited(lambda t: t.update({f"base_model.model.{MODULE}.lora_magnitude_vector": torch.ones(WIDTH)})),
        r"holds .*lora_magnitude_vector, which is DoRA's, but .*adapter_config.json has no use_dora: write",
    ),
    "the text tower's alone": (
        edited(lambda t: [t.update({name.replace("vision", "text"): t.pop(name)}) for name in (DOWN, UP)]),
        r"changes nothing of the encoder: it has .*text_model.*lora_A.weight, so give another adapter",
    ),
    "nothing": (edited(lambda t: t.clear()), "changes nothing of the encoder: it has no tensor"),
    "NaN": (edited(lambda t: t[UP].fill_(float("nan"))), "holds NaN"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_adapter_is_refused(name: str, suite: Suite, tmp_path: Path) -> None:
    damage, sentence = DAMAGE[name]
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained)
    damage(adapter)
    with pytest.raises(CheckpointError, match=sentence):
        build(suite.pretrained, [TaskInput("small", adapter)], tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', but only LORA"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type is 'PROMPT_TUNING'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is set"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "init_lora_weights is 'pissa_niter_4', which changes the base",
        ),
        ({"lora_alpha": "8"}, "lora_alpha must be a number of at most 1e.30, found '8'"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number of at most 1e.30, found 1000"),
        ({"lora_alpha": -1e31}, r"lora_alpha must be a number of at most 1e.30, found -1e\+31"),
        ({"alpha_pattern": {"q_proj": True}}, "alpha_pattern: 'q_proj' must be a number of .*, found True"),
        ({"alpha_pattern": {"q_proj": 10**400}}, "alpha_pattern: 'q_proj' must be a number of"),
        ({"alpha_pattern": [1]}, "alpha_pattern must be an object"),
        ({"alpha_pattern": dict.fromkeys(map(str, range(1001)), 1)}, "an object of at most 1000 patterns"),
        ({"use_dora": True}, r"has no lora_magnitude_vector \[32\]"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    config: dict[str, Any], sentence: str, suite: Suite, tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained, **config)
    with pytest.raises(CheckpointError, match=sentence):
        build(suite.pretrained, [TaskInput("small", adapter)], tmp_path / "out")


def test_an_adapter_of_other_modules_is_refused(suite: Suite, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained, "encoder.layer.0.attention.query")
    with pytest.raises(CheckpointError, match=r"layer.0.attention.query, which .* not have: give the model"):
        build(suite.pretrained, [TaskInput("small", adapter)], tmp_path / "out")


def test_an_adapter_is_no_whole_model(suite: Suite, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained)
    with pytest.raises(
        CheckpointError, match=r"adapter is a PEFT adapter, but a whole .* needed: give its base"
    ):
        build(adapter, [suite.tasks[0]], tmp_path / "out")
    file = TaskInput("small", adapter / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"adapter_model.safetensors is a PEFT adapter's, .*: give its fol"
    ):
        build(suite.pretrained, [file], tmp_path / "out")


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", "([a-z.0-9_]+)+!", "(?i)q_proj", "a{99999999999999999999}", "(" * 5000 + ")" * 5000, "[a-z]+"),
        *("q_proj*", ".*?q_proj", r"\w+", "é", "", "q" * 513, ".*a.*b.*c", r"\d+" * 3, "[0-9]+" * 85),
    ],
)
def test_a_pattern_that_may_take_long_is_refused(pattern: str, suite: Suite, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained, alpha_pattern={pattern: 4})
    with pytest.raises(CheckpointError, match=r"adapter_config.json: alpha_pattern has .* merge_and_unload"):
        Checkpoint.open(suite.pretrained).adapted(adapter)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        *(
            ("q_proj", True),
            ("proj", False),
            (r"v_proj|q_proj", True),
            (r".*\.q_proj", True),
            ("v_proj", False),
        ),
        *(
            (r"layers\.\d+\..*q_proj", True),
            (r"layers.[0-9]+.self_attn.q_proj", True),
            (r"layers\.1\..*", False),
        ),
        *(
            (f"^{MODULE}", True),
            ("^self_attn.q_proj", False),
            (f"^q_proj|^{MODULE}", True),
            (f"{'a|' * 248}q_proj", True),
        ),
        ("." * 400 + "|.*.*_", False),
    ],
)
def test_a_pattern_scales_the_modules_that_it_fits(
    pattern: str, fits: bool, suite: Suite, tmp_path: Path
) -> None:
    base = Checkpoint.open(suite.pretrained)
    name = "blocks.0.attention.qkv.weight"
    plain = base.adapted(save_adapter(tmp_path / "plain", suite.pretrained)).parameter(name)
    adapter = save_adapter(tmp_path / "adapter", suite.pretrained, alpha_pattern={pattern: 3})
    before = base.parameter(name)
    factor = 3 if fits else 1
    torch.testing.assert_close(base.adapted(adapter).parameter(name) - before, factor * (plain - before))
