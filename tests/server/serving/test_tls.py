"""The certificate and its key: read again when they change, and never a half of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from mass_serve.cli.app import app
from mass_serve.server.serving import tls
from mass_serve.server.serving.tls import TlsFiles
from mass_serve.server.settings import SettingsError, load_settings
from tests.certificates import Certificate, write_certificate


@pytest.fixture
def files(tmp_path: Path) -> Certificate:
    return write_certificate(tmp_path)


@pytest.fixture
def _always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "POLL_SECONDS", 0.0)


def read(files: Certificate) -> TlsFiles:
    return TlsFiles(files.cert, files.key)


@pytest.mark.usefixtures("_always_looks")
def test_a_renewed_certificate_is_read_once_both_files_are_there(files: Certificate, tmp_path: Path) -> None:
    served = read(files)
    before = served.current
    assert served.current is before
    (tmp_path / "new").mkdir()
    new = write_certificate(tmp_path / "new")
    new.cert.replace(files.cert)
    with capture_logs() as logs:
        assert served.current is before, "the key is still the old one"
    assert [line["error"] for line in logs] == ["the key is not that of the certificate"]
    new.key.replace(files.key)
    with capture_logs() as logs:
        renewed = served.current
    assert [line["event"] for line in logs] == ["certificate read"]
    assert renewed.chain == files.cert.read_bytes() != before.chain
    assert renewed.context is not before.context


@pytest.mark.usefixtures("_always_looks")
@pytest.mark.parametrize("content", [None, b"", b"no pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_cannot_be_read_leaves_the_last_certificate(files: Certificate, content: bytes | None) -> None:
    served = read(files)
    before = served.current
    files.cert.unlink()
    if content is not None:
        files.cert.write_bytes(content)
    with capture_logs() as logs:
        assert served.current is before
    assert [line["log_level"] for line in logs] == ["error"]


def test_the_files_are_not_looked_at_for_every_connection(files: Certificate) -> None:
    served = read(files)
    before = served.current
    write_certificate(files.cert.parent)
    assert served.current is before


def test_a_key_with_a_password_is_not_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tls_cert .*: the key is encrypted; decrypt it"):
        read(write_certificate(tmp_path, password=b"secret"))


def test_a_pipe_in_the_place_of_a_key_is_not_waited_for(files: Certificate) -> None:
    files.key.unlink()
    os.mkfifo(files.key)
    with pytest.raises(SettingsError, match="only regular files are read"):
        read(files)


def test_a_key_that_others_may_read_is_warned_of(files: Certificate) -> None:
    files.key.chmod(0o644)
    with capture_logs() as logs:
        read(files)
    assert [line["log_level"] for line in logs] == ["warning"]


def test_one_without_the_other_ends_the_start(files: Certificate) -> None:
    for given in ("tls_cert", "tls_key"):
        with pytest.raises(SettingsError, match="tls_cert and tls_key belong together"):
            load_settings({given: files.cert})
    assert TlsFiles.of(load_settings({})) is None
    swapped = ["--tls-cert", str(files.key), "--tls-key", str(files.cert)]
    result = CliRunner().invoke(app, ["serve", "--port", "0", *swapped])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "PEM" in result.stderr
