"""The commands, as a user calls them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.model_store.storage.opening import open_files
from mass_serve.model_store.store import Store
from tests.model_store.readers.test_adapters import save_adapter
from tests.models import Suite, make_model, save_head


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of a command that ends with `code`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def run_json(*arguments: object) -> dict[str, Any]:
    """What a command prints for machines, and nothing else is on standard output."""
    parsed: dict[str, Any] = json.loads(run(*arguments, "--json")[0])
    return parsed


def failure(*arguments: object, code: int = 2) -> str:
    """The one line that a command fails with."""
    stdout, stderr = run(*arguments, code=code)
    assert stdout == ""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in stderr
    return lines[0]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key, in files."""
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_sign_and_verify(store: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys
    assert "is not signed" in failure("verify", store, "--trusted-keys", public)
    out, err = run("sign", store, "--key", private)
    assert out.endswith("is signed, in manifest.json.sig\n")
    assert err == ""
    assert run("verify", store, "--trusted-keys", public)[0]
    monkeypatch.setenv("MASS_TRUSTED_KEYS", str(public))
    assert "sign it again with `mass-serve sign`" in run("task", "remove", store, "digits")[1]
    assert "must sign it with `mass-serve sign`" in failure("verify", store)
    assert "must sign it" in failure("classify", "x.png", "--store", store)
    assert run("inspect", store)[0], "what is to be signed can be looked at"
    private.chmod(0o644)
    assert f"warning: other users can read {private}" in run("sign", store, "--key", private)[1]
    assert run_json("sign", store, "--key", private)["signature"] == "manifest.json.sig"
    assert run_json("verify", store)["ok"]
    assert "sign it again" in run("task", "prune", store)[1]
    run("sign", store, "--key", private)
    assert run("task", "prune", store)[1] == "", "nothing was changed"
    assert "holds a public key" in failure("sign", store, "--key", public)


def test_verify_tells_of_numbers_that_nobody_can_compute_with(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    tensors = load_file(store / "pretrained.safetensors")
    tensors["class_embedding"][0] = float("nan")
    save_file(tensors, store / "pretrained.safetensors")
    content = (store / "pretrained.safetensors").read_bytes()
    manifest["files"]["pretrained.safetensors"] = hashlib.sha256(content).hexdigest()
    (store / "manifest.json").write_text(json.dumps(manifest))
    stderr = run("verify", store, code=1)[1]
    assert "pretrained.safetensors cannot be used: class_embedding holds NaN" in stderr


def task_flags(suite: Suite, count: int = 2) -> list[str]:
    return [part for task in suite.tasks[:count] for part in ("--task", f"{task.name}={task.checkpoint}")]


@pytest.fixture
def store(store_of_two: Path) -> Path:
    return store_of_two


@pytest.fixture
def store_of_later(store: Path) -> Path:
    """A store in a mode that this version does not have."""
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["router"]["mode"] = "sometime_later"
    (store / "manifest.json").write_text(json.dumps(manifest))
    return store


NO_SUCH_MODE = (
    "warning: this version has no mode 'sometime_later': serve the store with --mode and one of paper"
)


class TestBuild:
    def test_with_every_flag(self, suite: Suite, tmp_path: Path) -> None:
        head = suite.tasks[0].checkpoint / "head.safetensors"
        labels = suite.tasks[0].checkpoint / "labels.json"
        built = run_json(
            *("build", "--pretrained", suite.pretrained, *task_flags(suite), "--out", tmp_path / "s"),
            *("--head", f"digits={head}", "--labels", f"digits={labels}"),
            *("--individual-accuracy", "digits=0.9", "--compression-ratio", "0.25"),
            *(
                "--mode",
                "balanced",
                "--router-layer",
                "0",
                "--router-token",
                "mean",
                "--temperature",
                "2",
                "--threshold",
                "0.1",
            ),
            *("--top-k", "2", "--head-choice", "mean", "--first-pass", "pretrained"),
            *("--patch-embedding", "averaged", "--block-dtype", "float16", "--merged-base", "stored"),
        )
        manifest = Store.open(tmp_path / "s").manifest
        assert built["manifest"] == json.loads(manifest.to_bytes())
        assert built["bytes"] > 10_000
        assert manifest.router.model_dump() == {
            "mode": "balanced",
            "layer": 0,
            "token": "mean",
            "temperature": 2.0,
            "threshold": 0.1,
            "top_k": 2,
            "head_choice": "mean",
            "first_pass": "pretrained",
            "unrouted_below": 0.0,
        }
        assert (manifest.compression_ratio, manifest.block_dtype) == (0.25, "float16")
        assert (manifest.patch_embedding, manifest.merged_base) == ("averaged", "stored")
        assert [task.individual_accuracy for task in manifest.tasks] == [0.9, None]

    def test_for_people(self, suite: Suite, tmp_path: Path) -> None:
        out = tmp_path / "s"
        arguments = ("build", "--pretrained", suite.pretrained, *task_flags(suite), "--out", out)
        stdout, stderr = run(*arguments)
        assert "factoring street" in stderr
        for task in Store.open(out).manifest.tasks:
            (row,) = [line for line in stdout.splitlines() if f" {task.name} " in line]
            assert task.revision in row
        assert f"error: there is a store at {out} already" in failure(*arguments)

    @pytest.mark.parametrize(
        ("flags", "sentence"),
        [
            (["--task", "digits"], "--task 'digits' must have the form NAME=VALUE"),
            (["--head", "birds=x"], "--head birds: there is no --task birds"),
            (["--labels", "digits=a", "--labels", "digits=b"], "--labels digits is given twice"),
            (["--individual-accuracy", "digits=high"], "'high' is not a number"),
            (["--router-layer", "7"], "the router layer must be from 0 to 1, not 7"),
            (["--head", "digits=/gone"], "/gone does not exist"),
            (["--task", "digits=/gone"], "task digits is given twice"),
        ],
    )
    def test_wrong_flags(self, suite: Suite, tmp_path: Path, flags: list[str], sentence: str) -> None:
        arguments = ("build", "--pretrained", suite.pretrained, *task_flags(suite), "--out", tmp_path / "s")
        assert sentence in failure(*arguments, *flags)
        assert not (tmp_path / "s").exists()

    @pytest.mark.parametrize(
        "wrong",
        [("--block-dtype", "int8"), ("--mode", "nonsense"), ("--top-k", "few"), ("--head-choice", "")],
    )
    def test_values_outside_a_choice(self, suite: Suite, tmp_path: Path, wrong: tuple[str, str]) -> None:
        arguments = ("build", "--pretrained", suite.pretrained, *task_flags(suite), "--out", tmp_path / "s")
        assert f"Invalid value for '{wrong[0]}'" in run(*arguments, *wrong, code=2)[1]
        assert not (tmp_path / "s").exists()


class TestInspect:
    def test_is_the_manifest(self, built: Path) -> None:
        shown = run_json("inspect", built)
        assert shown["manifest"] == json.loads((built / "manifest.json").read_text())
        assert shown["store"] == str(built)

    def test_of_a_mode_that_this_version_does_not_have(self, store_of_later: Path) -> None:
        assert run("inspect", store_of_later)[1].startswith(NO_SUCH_MODE)
        assert run_json("inspect", store_of_later)["manifest"]["router"]["mode"] == "sometime_later"

    def test_of_nothing(self, tmp_path: Path) -> None:
        assert "there is no store at" in failure("inspect", tmp_path / "gone")

    def test_of_a_newer_store(self, store: Path) -> None:
        manifest = json.loads((store / "manifest.json").read_text())
        (store / "manifest.json").write_text(json.dumps(manifest | {"format_version": 3}))
        assert "update mass-serve" in failure("inspect", store)


class TestDistance:
    def test_is_shown_with_the_energy_that_is_kept(self, suite: Suite, store: Path) -> None:
        out, _ = run("task", "add", store, "signs", suite.tasks[2].checkpoint)
        entry = Store.open(store).task("signs")
        assert entry.distance is not None
        assert entry.energy_kept is not None
        assert entry.exit_price is not None
        shown = f"{entry.distance:.4f}", f"{entry.energy_kept:.1%}", f"{entry.exit_price:.4f}"
        assert (
            f"signs: distance from the base {shown[0]}, energy kept {shown[1]}, "
            f"price of an early exit {shown[2]}\n" in out
        )
        (row,) = [line for line in run("inspect", store)[0].splitlines() if " signs " in line]
        assert all(figure in row for figure in shown)
        again = run_json("task", "add", store, "signs", suite.tasks[2].checkpoint, "--replace")
        assert (again["distance"], again["energy_kept"]) == (entry.distance, entry.energy_kept)
        assert again["exit_price"] == entry.exit_price

    def test_is_a_dash_where_it_is_unknown(self) -> None:
        out, err = run("inspect", "tests/fixtures/store_v1/store")
        assert err == ""
        assert all(line.count(" - ") == 3 for line in out.splitlines() if "cosine" in line)

    def test_of_another_base_is_refused_and_warned_of(
        self, suite: Suite, store: Path, tmp_path: Path
    ) -> None:
        make_model(seed=5).save_pretrained(tmp_path / "other")
        save_head(tmp_path / "other", 4, 16)
        added = ("task", "add", store, "other", tmp_path / "other")
        assert "task other: its distance from the pretrained model is 1." in failure(*added)
        warning = "warning: task other: its distance from the pretrained model is 1."
        assert warning in run(*added, "--force")[1]
        assert warning in run("inspect", store)[1]
        flags = ("build", "--pretrained", suite.pretrained, "--task", f"other={tmp_path / 'other'}", "--out")
        assert "--force" in failure(*flags, tmp_path / "out")
        assert warning in run(*flags, tmp_path / "out", "--force")[1]


class TestRoutingOfThePaper:
    ALONE = "warning: small left blocks.1.mlp.fc1.weight alone, by which the mode paper routes: every image"

    def test_is_warned_of_where_a_task_leaves_it_nothing_to_compare(
        self, suite: Suite, tmp_path: Path
    ) -> None:
        adapter = save_adapter(tmp_path / "small", suite.pretrained)
        whole = f"digits={suite.tasks[0].checkpoint}"
        flags = ("build", "--pretrained", suite.pretrained, "--mode", "paper", "--task", whole)
        both, one = tmp_path / "both", tmp_path / "one"
        assert self.ALONE in run(*flags, "--task", f"small={adapter}", "--out", both)[1]
        assert self.ALONE in run("inspect", both)[1]
        assert self.ALONE not in run(*flags, "--out", one)[1]
        assert self.ALONE in run("task", "add", one, "small", adapter)[1]

    def test_is_no_matter_of_other_modes_or_of_one_task(self, suite: Suite, tmp_path: Path) -> None:
        adapter = save_adapter(tmp_path / "small", suite.pretrained)
        tasks = ("--task", f"digits={suite.tasks[0].checkpoint}", "--task", f"small={adapter}")
        flags = ("build", "--pretrained", suite.pretrained, *tasks, "--out")
        assert "left" not in run(*flags, tmp_path / "exact")[1]
        alone = ("build", "--pretrained", suite.pretrained, *tasks[2:], "--mode", "paper", "--out")
        assert "left" not in run(*alone, tmp_path / "alone")[1]


class TestVerify:
    def test_an_intact_store(self, built: Path) -> None:
        assert run_json("verify", built) == {"ok": True, "files": 5, "damaged": []}
        stdout, stderr = run("verify", built)
        assert "5 of 5 files are as they were written" in stdout
        assert "warning" not in stderr

    def test_a_mode_that_this_version_does_not_have(self, store_of_later: Path) -> None:
        assert NO_SUCH_MODE in run("verify", store_of_later)[1]
        assert run_json("verify", store_of_later)["ok"]

    def test_damage_ends_with_1(self, store: Path) -> None:
        (store / "pretrained.safetensors").write_bytes(b"")
        stdout, stderr = run("verify", store, code=1)
        assert "error: pretrained.safetensors" in stderr
        assert "4 of 5 files" in stdout
        parsed = json.loads(run("verify", store, "--json", code=1)[0])
        assert parsed["ok"] is False
        assert len(parsed["damaged"]) == 1

    def test_no_store_ends_with_2(self, tmp_path: Path) -> None:
        failure("verify", tmp_path)


class TestCompact:
    def test_for_machines(self, store: Path) -> None:
        revisions = {task.name: task.revision for task in Store.open(store).manifest.tasks}
        compacted = run_json("compact", store, "--compression-ratio", "0.25/T")
        opened = Store.open(store)
        assert compacted["store_revision"] == opened.manifest.store_revision
        assert compacted["cut"] == ["digits", "street"]
        assert compacted["task_bytes"]["after"] < compacted["task_bytes"]["before"] / 2
        # Prices are measured anew, of what is served.
        assert all(task.exit_price is not None for task in opened.manifest.tasks)
        assert run_json("task", "rollback", store, "digits")["tasks"]["digits"] == revisions["digits"]

    def test_for_people(self, store: Path) -> None:
        assert "0 of 2 tasks cut" in run("compact", store)[0]
        stdout, stderr = run("compact", store, "--compression-ratio", "0.25")
        assert "compression ratio 0.25, 2 of 2 tasks cut, all of them " in stdout
        assert "earlier revisions stay until" in stdout
        assert "cutting tasks" in stderr

    def test_a_signed_store_has_to_be_signed_again(self, store: Path) -> None:
        (store / "manifest.json.sig").write_bytes(b"of the revision before")
        assert "sign it again" not in run("compact", store)[1]
        assert "sign it again" in run("compact", store, "--compression-ratio", "0.25")[1]

    @pytest.mark.parametrize(
        ("ratio", "sentence"),
        [
            ("0", "above 0 and at most 1"),
            ("much", "such as 2/T, not much"),
            ("0.001", "less than one singular"),
        ],
    )
    def test_mistakes(self, store: Path, ratio: str, sentence: str) -> None:
        assert sentence in failure("compact", store, "--compression-ratio", ratio)


class TestConvert:
    def test_for_machines(self, store: Path) -> None:
        revisions = {task.name: task.revision for task in Store.open(store).manifest.tasks}
        converted = run_json("convert", store, "--format", "int4")
        opened = Store.open(store)
        assert converted["store_revision"] == opened.manifest.store_revision
        assert (converted["format"], converted["converted"]) == ("int4", ["digits", "street"])
        assert converted["task_bytes"]["after"] < converted["task_bytes"]["before"] / 1.5
        # Prices are measured anew, of what is served.
        assert all(task.exit_price is not None for task in opened.manifest.tasks)
        assert run_json("task", "rollback", store, "digits")["tasks"]["digits"] == revisions["digits"]
        assert "blocks int4 and bfloat16 of 1 tasks" in run("inspect", store)[0]

    def test_for_people(self, store: Path, tmp_path: Path) -> None:
        stdout, stderr = run("convert", store, "--format", "int8", "--out", tmp_path / "small")
        assert f"{tmp_path / 'small'}: revision " in stdout
        assert "blocks int8, 2 of 2 tasks converted, all of them " in stdout
        assert "earlier revisions" not in stdout
        assert "converting tasks" in stderr
        assert "earlier revisions stay until" in run("convert", store, "--format", "int8")[0]
        assert "0 of 2 tasks converted" in run("convert", store, "--format", "int8")[0]

    def test_a_signed_store_has_to_be_signed_again(self, store: Path) -> None:
        (store / "manifest.json.sig").write_bytes(b"of the revision before")
        assert "sign it again" not in run("convert", store, "--format", "bfloat16")[1]
        assert "sign it again" in run("convert", store, "--format", "int4")[1]

    def test_mistakes(self, store: Path) -> None:
        assert "there is a store at" in failure("convert", store, "--format", "int4", "--out", store)
        assert "there is no store" in failure("convert", store / "gone", "--format", "int4")


class TestTask:
    def test_life_of_a_task(self, suite: Suite, store: Path) -> None:
        signs = suite.tasks[2].checkpoint
        added = run_json("task", "add", store, "signs", signs, "--individual-accuracy", "0.5")
        assert list(added["tasks"]) == ["digits", "street", "signs"]
        assert Store.open(store).task("signs").individual_accuracy == 0.5
        replaced = run_json("task", "add", store, "signs", signs, "--replace")
        assert replaced["tasks"]["signs"] != added["tasks"]["signs"]
        assert list(run_json("task", "remove", store, "digits")["tasks"]) == ["street", "signs"]
        back = run_json("task", "rollback", store, "signs")
        assert back["tasks"]["signs"] == added["tasks"]["signs"]
        assert back["store_revision"] == Store.open(store).manifest.store_revision
        stdout, _ = run("task", "rollback", store, "digits")
        assert "digits" in stdout
        # The revision of signs that was rolled back, and those of digits and street before they were cut.
        assert len(run_json("task", "prune", store)["deleted"]) == 3 * 2
        assert run_json("verify", store)["ok"]

    def test_adding_says_what_all_tasks_keep(self, suite: Suite, store: Path) -> None:
        stdout, _ = run("task", "add", store, "signs", suite.tasks[2].checkpoint)
        assert "compression ratio 0.3333 (1/T), tasks digits" in stdout

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["add", "digits", "x"], "task digits exists already"),
            (["add", "birds", "/gone"], "/gone does not exist"),
            (["add", "Bir ds", "/gone"], "task name 'Bir ds' must be"),
            (["remove", "birds"], "there is no task 'birds'"),
            (["rollback", "digits"], "task digits has no earlier revision"),
        ],
    )
    def test_mistakes(self, store: Path, arguments: list[str], sentence: str) -> None:
        verb, *rest = arguments
        assert sentence in failure("task", verb, store, *rest)

    def test_a_store_in_use(self, store: Path) -> None:
        with open_files(store).lock():
            assert "another process is writing" in failure("task", "remove", store, "digits")
            assert "another process is writing" in failure("task", "prune", store)
