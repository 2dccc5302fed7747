"""Tasks of any number of labels from the command line: built, shown, asked, measured, and what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mass_serve.engine import Engine
from mass_serve.model_store.store import Store
from tests import texts, trained_tokenizers
from tests.cli.test_stores import failure, run, run_json
from tests.trained_tokenizers import TRAINED

TEXT = "Jane lives in New York"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> texts.Finetuned:
    """`guard` and `domain` do not say how many labels a text has; `safety` says that it has any number."""
    tokenizer = TRAINED["Bert"]()
    folder = tmp_path_factory.mktemp("models")
    models = texts.finetuned(folder, "Bert", multi_label=("safety",), vocab_size=tokenizer.get_vocab_size())
    trained_tokenizers.save(tokenizer, models.pretrained)
    return models


@pytest.fixture(scope="module")
def flags(models: texts.Finetuned) -> list[str]:
    tasks = (f"--task={task.name}={task.checkpoint}" for task in models.tasks)
    return ["--pretrained", str(models.pretrained), *tasks, "--force"]


def thresholds(path: Path, **given: float) -> Path:
    path.write_text(json.dumps({name.replace("_", " "): value for name, value in given.items()}))
    return path


@pytest.fixture(scope="module")
def store(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    all_of_them = thresholds(folder / "all.json", domain_0=0, domain_1=0, domain_2=0, domain_3=0)
    run("build", *flags, "--thresholds", f"domain={all_of_them}", "--out", folder / "store")
    return folder / "store"


def kept(store: Path) -> dict[str, tuple[float, ...] | None]:
    return {task.name: task.head.thresholds for task in Store.open(str(store)).manifest.tasks}


def test_a_checkpoint_a_file_or_a_flag_says_that_there_are_any_number(
    flags: list[str], store: Path, tmp_path: Path
) -> None:
    assert kept(store) == {"guard": None, "domain": (0.0,) * 4, "safety": (0.5,) * 5}
    run("build", *flags, "--multi-label", "guard", "--out", tmp_path / "store")
    assert kept(tmp_path / "store") == {"guard": (0.5,) * 3, "domain": None, "safety": (0.5,) * 5}
    run("verify", tmp_path / "store")


def test_a_recipe_says_it_too(models: texts.Finetuned, tmp_path: Path) -> None:
    thresholds(tmp_path / "mine.json", domain_3=0.25)
    folder = models.pretrained.parent
    (tmp_path / "recipe.yaml").write_text(f"""
pretrained: {models.pretrained}
force: true
tasks:
  - {{name: guard, checkpoint: {folder}/guard, multi_label: true}}
  - {{name: domain, checkpoint: {folder}/domain, thresholds: mine.json}}
""")
    run("build", tmp_path / "recipe.yaml", "--out", tmp_path / "store")
    assert kept(tmp_path / "store") == {"guard": (0.5,) * 3, "domain": (0.5, 0.5, 0.5, 0.25)}


def test_a_task_is_added_with_thresholds_and_gets_others(models: texts.Finetuned, tmp_path: Path) -> None:
    guard = f"guard={models.tasks[0].checkpoint}"
    run("build", "--pretrained", models.pretrained, "--task", guard, "--force", "--out", tmp_path / "store")
    add = ("task", "add", tmp_path / "store", "domain", models.tasks[1].checkpoint, "--force")
    told, _ = run(*add, "--multi-label")
    assert "domain: gives any number of labels, distance from the base" in told
    assert kept(tmp_path / "store")["domain"] == (0.5,) * 4
    run(*add, "--replace", "--thresholds", thresholds(tmp_path / "mine.json", domain_1=0.75))
    assert kept(tmp_path / "store")["domain"] == (0.5, 0.75, 0.5, 0.5)
    run("task", "rollback", tmp_path / "store", "domain")
    assert kept(tmp_path / "store")["domain"] == (0.5,) * 4


def test_a_store_shows_which_tasks_they_are(store: Path) -> None:
    shown, _ = run("inspect", store)
    heads = {line.split()[1]: "multi-label" in line for line in shown.splitlines() if "stack" in line}
    assert heads == {"guard": False, "domain": True, "safety": True}
    tasks = run_json("inspect", store)["manifest"]["tasks"]
    assert [task["head"].get("thresholds") for task in tasks] == [None, [0.0] * 4, [0.5] * 5]


def test_a_line_has_the_labels_that_reach_their_thresholds(store: Path) -> None:
    (answer,) = Engine.load(str(store), device="cpu").classify([TEXT], ["domain"])
    scores = dict(zip(answer.labels, answer.probabilities.tolist(), strict=True))
    told, _ = run("classify", "--text", TEXT, "--store", store, "--task", "domain")
    assert told.rstrip("\n").split("\t")[1:] == [
        "domain",
        ", ".join(f"{label} {scores[label]:.3f}" for label in answer.given),
    ]
    assert len(answer.given) == 4
    found = json.loads(run("classify", "--text", TEXT, "--store", store, "--task", "domain", "--json")[0])
    assert [one["label"] for one in found[0]["labels"]] == list(answer.given)


def test_a_line_says_that_there_is_no_label(flags: list[str], tmp_path: Path) -> None:
    none = thresholds(tmp_path / "none.json", guard_0=1, guard_1=1, guard_2=1)
    run("build", *flags, "--thresholds", f"guard={none}", "--out", tmp_path / "store")
    told, _ = run("classify", "--text", TEXT, "--store", tmp_path / "store", "--task", "guard")
    assert told.rstrip("\n").split("\t")[1:] == ["guard", "(no label)"]


def test_they_are_measured_with_lists_of_labels(store: Path, tmp_path: Path) -> None:
    rows = [{"text": TEXT, "labels": [f"domain {row}" for row in range(count)]} for count in (4, 4, 3)]
    (tmp_path / "domain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told, _ = run("eval", store, tmp_path, "--baseline", "tsv_c", "--json", tmp_path / "figures.json")
    report = json.loads((tmp_path / "figures.json").read_text())
    figures = report["baselines"]["tsv_c"]["tasks"]["domain"]
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["micro_f1"] == pytest.approx(2 * 11 / (12 + 11))
    routed = report["tasks"]["domain"]
    assert ("micro F1" in told) == (routed["micro_f1"] != routed["accuracy"])


def test_thresholds_change_without_the_model(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    before = Store.open(str(tmp_path / "store")).task("domain")
    file = thresholds(tmp_path / "mine.json", domain_1=0.75, domain_2=1)
    told = run_json("task", "thresholds", tmp_path / "store", "domain", file)
    changed = Store.open(str(tmp_path / "store"))
    assert kept(tmp_path / "store")["domain"] == (0.5, 0.75, 1.0, 0.5)
    assert told["tasks"]["domain"] == changed.task("domain").revision != before.revision
    assert list(changed.task("domain").files.values()) == list(before.files.values())
    run("verify", tmp_path / "store")
    answers = [Engine.load(str(one)).classify([TEXT], ["domain"])[0] for one in (store, tmp_path / "store")]
    assert answers[0].logits.tolist() == answers[1].logits.tolist()
    assert "domain 2" in answers[0].given
    assert "domain 2" not in answers[1].given
    run("task", "rollback", tmp_path / "store", "domain")
    assert kept(tmp_path / "store")["domain"] == (0.0,) * 4
    run("task", "prune", tmp_path / "store")
    run("verify", tmp_path / "store")


def test_thresholds_are_chosen_on_labelled_inputs(store: Path, tmp_path: Path) -> None:
    asked = [f"{TEXT} {row}" for row in range(6)]
    answers = Engine.load(str(store)).classify(asked, ["domain"])
    scores = [dict(zip(one.labels, one.probabilities.tolist(), strict=True))["domain 1"] for one in answers]
    cut = sorted(scores)[3]
    rows = [
        {"text": text, "labels": ["domain 0", *(["domain 1"] if score >= cut else [])]}
        for text, score in zip(asked, scores, strict=True)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "domain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "chosen.json"
    told, _ = run("task", "choose-thresholds", store, "domain", tmp_path / "data", "--out", out)
    assert "thresholds of 2 labels of domain; 2 labels that no input has keep theirs" in told.replace(
        "\n", " "
    )
    chosen = json.loads(out.read_text())
    assert (chosen["domain 2"], chosen["domain 3"]) == (0.0, 0.0)
    assert [score >= chosen["domain 1"] for score in scores] == [score >= cut for score in scores]
    again = failure("task", "choose-thresholds", store, "domain", tmp_path / "data", "--out", out)
    assert "exists: remove it, or choose another name" in again.replace("\n", " ")
    shutil.copytree(store, tmp_path / "store")
    run("task", "thresholds", tmp_path / "store", "domain", out)
    assert kept(tmp_path / "store")["domain"] == tuple(chosen.values())


def test_thresholds_are_chosen_of_tasks_that_have_them(store: Path, tmp_path: Path) -> None:
    choose = ("task", "choose-thresholds", store)
    said = failure(*choose, "guard", tmp_path, "--out", tmp_path / "chosen.json")
    assert "'guard' is no task of any number of labels; the store has domain, safety" in said
    (tmp_path / "domain.jsonl").write_text('{"text": "w9", "labels": []}')
    said = failure(*choose, "safety", tmp_path, "--out", tmp_path / "chosen.json")
    assert f"{tmp_path} has no texts of safety: add some" in said
    assert not (tmp_path / "chosen.json").exists()


@pytest.mark.parametrize(
    ("task", "content", "sentence"),
    [
        ("guard", "{}", "task guard gives an input one label, and has no thresholds"),
        ("cars", "{}", "there is no task 'cars' in"),
        ("domain", '{"horse": 0.5}', "has a threshold for 'horse', which is no label of the head"),
        ("domain", '{"domain 0": -1}', "must be a number from 0 to 1, and is '-1'"),
    ],
)
def test_thresholds_that_change_nothing(
    store: Path, tmp_path: Path, task: str, content: str, sentence: str
) -> None:
    revision = Store.open(str(store)).manifest.store_revision
    (tmp_path / "mine.json").write_text(content)
    assert sentence in failure("task", "thresholds", store, task, tmp_path / "mine.json")
    assert Store.open(str(store)).manifest.store_revision == revision
    run("verify", store)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--multi-label", "cars"], "--multi-label cars: there is no --task cars"),
        (["--thresholds", "cars=mine.json"], "--thresholds cars: there is no --task cars"),
        (["--thresholds", "mine.json"], "--thresholds 'mine.json' must have the form NAME=VALUE"),
        (["--thresholds", "guard=nowhere.json"], "nowhere.json"),
    ],
)
def test_flags_that_fit_no_task(flags: list[str], tmp_path: Path, more: list[str], sentence: str) -> None:
    assert sentence in failure("build", *flags, *more, "--out", tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"guard 0": NaN}', "NaN is not a finite number"),
        ('{"guard 0": 7}', "must be a number from 0 to 1, and is '7'"),
        ('{"horse": 0.5}', "has a threshold for 'horse', which is no label of the head"),
        ("[0.5, 0.5]", "must hold a JSON object of labels and their thresholds"),
    ],
)
def test_thresholds_that_are_none(flags: list[str], tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    said = failure(
        "build", *flags, "--thresholds", f"guard={tmp_path / 'mine.json'}", "--out", tmp_path / "s"
    )
    assert sentence in said
    assert not (tmp_path / "s").exists()
