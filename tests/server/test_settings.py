"""Where settings come from, which wins, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mass_serve.server.settings import SettingsError, load_settings, passed_over


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mass.toml"
    path.write_text('port = 1001\nhost = "file"\nqueue_images = 100\n')
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASS_HOST", "environment")
    monkeypatch.setenv("MASS_PORT", "1002")
    settings = load_settings({"config": file, "port": 1003, "host": None})
    assert (settings.port, settings.host, settings.queue_images, settings.max_batch_images) == (
        1003,
        "environment",
        100,
        32,
    )


def test_the_file_may_be_named_in_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASS_CONFIG", str(file))
    assert load_settings({}).port == 1001


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"port": 70_000}, ["port", "65535"]),
        ({"port": "x"}, ["port", "integer"]),
        ({"device": "tpu"}, ["device: must be auto, cpu, cuda or cuda:INDEX, not 'tpu'"]),
        ({"device": "cuda:1000"}, ["device: must be"]),
        ({"device": "cuda:\u0663"}, ["device: must be"]),
        ({"queue_images": 0}, ["queue_images"]),
        ({"max_images_per_request": 500}, ["max_images_per_request", "queue_images"]),
        ({"max_held_bytes": 1000}, ["max_body_bytes (33554432)", "max_held_bytes (1000)"]),
        ({"hang_timeout": 1}, ["max_batch_seconds (1) must be less than hang_timeout (1)", "hung"]),
        ({"max_batch_seconds": 90}, ["max_batch_seconds (90)", "hang_timeout (60)"]),
        ({"batch_delay": 30}, ["batch_delay (30) must be less than request_timeout (30)", "504"]),
        ({"grpc_port": 8000}, ["port and grpc_port are both 8000"]),
        ({"request_timeout": float("nan")}, ["request_timeout"]),
        ({"request_timeout": 0}, ["request_timeout"]),
        ({"config": "/does/not/exist.toml"}, ["/does/not/exist.toml"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(flags: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_ports_that_the_system_chooses_are_not_the_same() -> None:
    assert load_settings({"port": 0, "grpc_port": 0}).grpc_port == 0


@pytest.mark.parametrize(
    ("text", "word"), [("prot = 1", "prot"), ("port = ", "configuration file"), ("port = 'x'", "port")]
)
def test_a_wrong_file(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "mass.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=word):
        load_settings({"config": path})


def test_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASS_QUEUE_IMAGES", "many")
    with pytest.raises(SettingsError, match="queue_images"):
        load_settings({})


def test_variables_that_are_no_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MASS_MAX_BATCH_IMAGE",
        "mass_queue_images",
        "MASS_SERVE_PORT_8000_TCP",
        "MASSIVE",
        "MASS_OF_IT",
    ):
        monkeypatch.setenv(name, "1")
    assert list(passed_over()) == [
        "the variable MASS_MAX_BATCH_IMAGE is no setting and is passed over; is MASS_MAX_BATCH_IMAGES meant?",
        "the variable MASS_OF_IT is no setting and is passed over",
    ]
