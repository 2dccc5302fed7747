"""`mass-serve check-config` says before a start what the start would say."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mass_serve.cli.app import app
from mass_serve.cli.check_config import settings_as_toml
from mass_serve.server.settings import load_settings
from tests.certificates import write_certificate

pytestmark = pytest.mark.usefixtures("_logging_restored")


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check-config", *arguments], env={"MASS_QUEUE_IMAGES": "128"})


def test_what_it_prints_is_a_file_of_the_same_settings(tmp_path: Path, built_of_all: Path) -> None:
    store = shutil.copytree(built_of_all, tmp_path / "store \N{GRINNING FACE}")
    certificate = write_certificate(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text("a-secret-key name=team rate=5\n")
    keys.chmod(0o600)
    result = check(
        str(store),
        *("--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key)),
        *("--inference-keys-file", str(keys), "--grpc-port", "8001", "--tracing"),
        *("--cors-origins", "https://a.example,https://b.example", "--batch-delay", "0.00001"),
    )
    assert result.exit_code == 0, result.output
    told = tomllib.loads(result.stdout)
    assert (told["store"], told["queue_images"], told["grpc_port"]) == (str(store), 128, 8001)
    assert told["cors_origins"] == ["https://a.example", "https://b.example"]
    assert "a-secret-key" not in result.output
    manifest = json.loads((built_of_all / "manifest.json").read_bytes())
    assert manifest.keys() >= {"tasks"}
    assert "the store is at revision" in result.stderr
    again = tmp_path / "again.toml"
    again.write_text(result.stdout)
    first = load_settings({"config": again})
    assert first.tls_cert == certificate.cert
    assert check("--config", str(again)).stdout == result.stdout


def test_no_password_is_printed() -> None:
    """The output of a systemd unit goes into the system's log."""
    lines = list(settings_as_toml(load_settings({"store": "s3://me:a-password@bucket/store"})))
    assert 'store = "s3://bucket/store"' in lines


def test_a_misspelt_variable_is_named(built_of_all: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASS_QUEUE_IMAGE", "7")
    result = check(str(built_of_all))
    assert result.exit_code == 0
    assert "MASS_QUEUE_IMAGE is no setting and is passed over; is MASS_QUEUE_IMAGES meant?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--port", "70000"], 2, "port"),
        (["--inference-keys-file", "/nonexistent"], 2, "key file"),
        (["--tls-cert", "/nonexistent"], 2, "tls_key"),
        (["--cors-origins", "https://App.example"], 2, "cors_origins"),
        (["--device", "cuda:99"], 2, "cuda"),
        (["--max-connections", "1000000000"], 2, "max_connections"),
        (["--max-batch-seconds", "60"], 2, "hang_timeout"),
        (["/nonexistent"], 1, "/nonexistent"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], code: int, says: str) -> None:
    result = check(*arguments)
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert result.stdout == ""
