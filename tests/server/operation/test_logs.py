"""What a log must not tell."""

from __future__ import annotations

import logging

import pytest
import structlog

from mass_serve.server.operation.logs import configure_logs
from mass_serve.server.settings import load_settings


@pytest.mark.usefixtures("_logging_restored")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_credentials_in_a_url_are_not_shown(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(load_settings({"log_format": log_format}))
    log = structlog.get_logger("test")
    log.info("loading", store="s3://user:secret@bucket/store")
    try:
        raise OSError("cannot reach s3://user:secret@bucket/store")
    except OSError as error:
        log.error("loading failed", error=str(error), exc_info=error)
    shown = capsys.readouterr().err
    assert "s3://bucket/store" in shown
    assert "Traceback" in shown
    assert "secret" not in shown


def fail(key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    raise RuntimeError(f"a defect with {len(headers)} headers")


@pytest.mark.usefixtures("_logging_restored")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_does_not_show_the_headers_that_it_passed(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(load_settings({"log_format": log_format}))
    key = "".join(["sec", "ret"])  # a traceback quotes the lines of the program
    try:
        fail(key)
    except RuntimeError:
        structlog.get_logger("test").exception("unexpected error")
    log = capsys.readouterr().err
    assert "Traceback" in log
    assert "a defect with 1 headers" in log
    assert key not in log


HOSTILE = "/\x1b[31mred\n2026-01-01 forged\r\x07\x9b2J\u2028\u202eevil"


def say_hostile_things(log_format: str) -> None:
    """Logs by this service's log and those of libraries: an event, a value, an object and an exception."""
    configure_logs(load_settings({"log_format": log_format}))
    structlog.get_logger("test").info("request", path=HOSTILE, several=[HOSTILE])
    logging.getLogger("asyncio").error("task failed: %s", HOSTILE)
    logging.getLogger("uvicorn.error").warning(HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        structlog.get_logger("test").error("failed", exc_info=error)


@pytest.mark.usefixtures("_logging_restored")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_nothing_logged_can_command_a_terminal_or_forge_a_line(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_hostile_things(log_format)
    log = capsys.readouterr().err
    assert [line for line in log.splitlines() if line.startswith("2026-01-01 forged")] == []
    assert all(character.isprintable() for line in log.split("\n") for character in line)
    assert log.count("red") >= 4
    assert "Traceback" in log


@pytest.mark.usefixtures("_logging_restored")
def test_what_is_printable_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(load_settings({"log_format": "console"}))
    structlog.get_logger("test").info("ready", tasks=["cars", "Vögel"], path="C:\\store")
    log = capsys.readouterr().err
    assert "['cars', 'Vögel']" in log
    assert "C:\\store" in log
