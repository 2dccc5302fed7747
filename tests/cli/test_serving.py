"""`mass-serve serve` and `mass-serve classify` on a tiny real store, and how they fail."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.engine import Engine
from mass_serve.model_store.revisions import remove_task
from mass_serve.server.settings import Settings
from tests.pictures import encode

PATIENCE = 60.0
SERVE = (sys.executable, "-c", "from mass_serve.cli.app import main; main()", "serve")


@pytest.fixture(scope="module")
def store(built_of_all: Path) -> Path:
    """Read only."""
    return built_of_all


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(encode(Image.linear_gradient("L").rotate(90 * n).convert("RGB")))
    return paths


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    """A served real store."""
    flags = ("--port", "0", "--log-format", "json", "--drain-seconds", "0")
    with subprocess.Popen([*SERVE, str(store), *flags], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        loading, ready = (json.loads(process.stderr.readline()) for _ in range(2))
        assert ready["event"] == "ready"
        assert ready["tasks"] == ["digits", "street", "signs"]
        yield loading["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_http_gives_the_same_bits_as_the_engine(store: Path, images: list[Path], url: str) -> None:
    expected = Engine.load(str(store)).classify([Image.open(path) for path in images])
    files = [("images", path.read_bytes()) for path in images]
    response = httpx.post(f"{url}/v1/classify?top_k=100", files=files, trust_env=False)
    for result, answer in zip(response.json()["results"], expected, strict=True):
        assert result["task"] == answer.task
        assert tuple(result["routing"]["expert_set"]) == answer.expert_set
        assert result["routing"]["residuals"] == {t: answer.residuals[t] for t in answer.expert_set}
        assert result["score"] == float(answer.probabilities.max())
        assert {entry["label"] for entry in result["top"]} == set(answer.labels)


def test_inspect_tells_what_could_be_brought_back(store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "copy")
    assert "removed" not in CliRunner().invoke(app, ["inspect", str(copy)]).stdout
    remove_task(copy, "street")
    assert (
        "removed, kept until `task prune`: street" in CliRunner().invoke(app, ["inspect", str(copy)]).stdout
    )


def test_naming_one_task_skips_the_routing(images: list[Path], url: str) -> None:
    response = httpx.post(f"{url}/v1/classify?tasks=signs", content=images[0].read_bytes(), trust_env=False)
    result = response.json()["results"][0]
    assert result["task"] == "signs"
    assert result["routing"]["residuals"] == {}


def test_metrics_of_a_real_engine(url: str) -> None:
    samples = dict(
        line.rsplit(" ", 1) for line in httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
    )
    for sample in (
        "mass_set_cache_misses_total",
        "mass_set_cache_bytes",
        'mass_device_memory_bytes{kind="experts"}',
        'mass_stage_duration_seconds_count{stage="first_pass"}',
        'mass_stage_duration_seconds_count{stage="heads"}',
    ):
        assert float(samples[sample]) > 0, sample


def corrupt_store(store: Path, folder: Path) -> Path:
    """A copy with one bit of one file flipped."""
    corrupt = shutil.copytree(store, folder / "corrupt")
    experts = next(corrupt.glob("tasks/digits/*/experts.safetensors"))
    data = bytearray(experts.read_bytes())
    data[-1] ^= 1
    experts.write_bytes(data)
    return corrupt


def newer_store(store: Path, folder: Path) -> Path:
    """A copy whose manifest is of a later format."""
    newer = shutil.copytree(store, folder / "newer")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    return newer


def test_serve_fails_in_one_line_with_exit_code_2(store: Path, tmp_path: Path, url: str) -> None:
    port = str(httpx.URL(url).port)
    attempts = {
        f"port {port}.*in use": (str(store), "--port", port),
        "no store": (str(tmp_path / "missing"), "--port", "0"),
        "experts.safetensors": (str(corrupt_store(store, tmp_path)), "--port", "0"),
    }
    processes = {
        words: subprocess.Popen([*SERVE, *flags, "--log-level", "error"], stderr=subprocess.PIPE, text=True)
        for words, flags in attempts.items()
    }
    for words, process in processes.items():
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2, errors
        assert re.fullmatch(rf"error: .*{words}.*\n", errors), errors


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_classify_prints_a_line_per_image(store: Path, images: list[Path]) -> None:
    code, output, _ = run("classify", *images, "--store", store, "--top", 2)
    assert code == 0
    for line, path in zip(output.splitlines(), images, strict=True):
        given = line.split("\t")[:3]  # what follows says what else it may be
        assert re.fullmatch(
            rf"{path}\t(digits|street|signs)\tclass \d [01]\.\d{{3}}, class \d [01]\.\d{{3}}",
            "\t".join(given),
        )


def test_classify_says_what_else_it_may_be_and_what_is_of_no_task(
    store: Path, images: list[Path], tmp_path: Path
) -> None:
    """In the fourth column, of which other answers have none."""
    several, strict = tmp_path / "several", tmp_path / "strict"
    for place, bound in ((several, 0.0), (strict, 0.9)):
        shutil.copytree(store, place)
        manifest = json.loads((place / "manifest.json").read_text())
        # Of which every image gets several tasks.
        manifest["router"] |= {"mode": "paper", "threshold": 0.0, "unrouted_below": bound}
        (place / "manifest.json").write_text(json.dumps(manifest))
    for place, start in ((several, ""), (strict, "none of these")):
        _, lines, _ = run("classify", *images, "--store", place)
        answers = json.loads(run("classify", *images, "--store", place, "--json")[1])
        for line, answer in zip(lines.splitlines(), answers, strict=True):
            others = [
                f"or {one['task']}: {one['label']} {one['coefficient']:.3f}" for one in answer["alternatives"]
            ]
            doubts = "; ".join([*([start] if start else []), *others])
            assert line.split("\t")[3:] == ([f"({doubts})"] if doubts else [])
        assert any(answer["alternatives"] for answer in answers)


def test_classify_as_json_within_one_task(store: Path, images: list[Path]) -> None:
    code, output, _ = run("classify", images[0], "--store", store, "--task", "street", "--json")
    (answer,) = json.loads(output)
    assert code == 0
    assert (answer["image"], answer["task"], len(answer["top"])) == (str(images[0]), "street", 1)


def test_classify_with_the_answer_of_every_task(store: Path, images: list[Path]) -> None:
    bad = store / "manifest.json"
    code, output, errors = run("classify", *images[:2], bad, "--store", store, "--answer", "each", "--json")
    assert code == 1, errors
    tasks = list(Engine.load(str(store)).tasks)
    results = json.loads(output)
    assert [one["image"] for one in results] == [str(path) for path in images[:2] for _ in tasks]
    assert [one["task"] for one in results] == tasks * 2


def test_classify_images_of_the_same_task(
    store: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output, _ = run("classify", *images, "--store", store, "--same-task")
    assert code == 0
    assert len({line.split("\t")[1] for line in output.splitlines()}) == 1
    monkeypatch.setenv("MASS_MAX_BATCH_IMAGES", "1")
    code, _, errors = run("classify", *images, "--store", store, "--same-task")
    assert code == 2
    assert "one batch, which has 1, and there are more" in errors


def test_classify_answers_the_good_images_and_names_the_bad(
    store: Path, images: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"hello")
    code, output, errors = run("classify", bad, images[0], tmp_path / "missing.png", "--store", store)
    assert code == 1
    assert output.startswith(str(images[0]))
    assert f"error: {bad}: This is not an image" in errors
    assert f"error: {tmp_path / 'missing.png'}: No such file" in errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--task", "cats"), "no task 'cats'"), (("--store", "/does/not/exist"), "/does/not/exist")],
)
def test_classify_fails_with_exit_code_2(
    store: Path, images: list[Path], flags: tuple[str, ...], words: str
) -> None:
    code, _, errors = run("classify", images[0], "--store", store, *flags)
    assert code == 2
    assert errors.startswith("error: ")
    assert words in errors


def test_a_store_of_a_newer_format_is_told_apart(store: Path, images: list[Path], tmp_path: Path) -> None:
    code, _, errors = run("classify", images[0], "--store", newer_store(store, tmp_path))
    assert code == 2
    assert re.fullmatch(r"error: .*99.*\n", errors)


def test_version() -> None:
    assert run("--version")[1].startswith("mass-serve ")


def test_every_setting_is_a_flag_and_its_default_is_told() -> None:
    text = run("serve", "--help")[1]
    for name in set(Settings.model_fields) - {"store"}:
        assert f"--{name.replace('_', '-')} " in text
    assert "(default: 8000)" in text
