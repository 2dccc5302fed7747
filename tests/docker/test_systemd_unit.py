"""The unit for systemd fits the server, and is one that systemd takes."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from mass_serve.cli.app import COMMANDS
from mass_serve.server.settings import Settings, load_settings
from tests.docker.material import DOCKER, seconds

UNIT = DOCKER / "systemd" / "mass-serve.service"
PROGRAM = "/opt/mass-serve/bin/mass-serve"


def read() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_the_commands_are_the_programs() -> None:
    service = read()["Service"]
    for key, expected in (("ExecStartPre", "check-config"), ("ExecStart", "serve")):
        program, command, *flags = service[key].split()
        assert (program, command) == (PROGRAM, expected)
        known = {flag for parameter in COMMANDS[command].load(command).params for flag in parameter.opts}
        assert {flag for flag in flags if flag.startswith("--")} <= known
    variables = dict(one.split("=", 1) for one in service["Environment"].split())
    known = {f"MASS_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in variables if name.startswith("MASS_")} <= known


def test_it_has_time_to_drain_and_files_for_its_connections() -> None:
    service, settings = read()["Service"], load_settings({})
    longest = settings.drain_seconds + 2 * settings.request_timeout + 1
    assert seconds(f"{service['TimeoutStopSec']}s") > longest
    assert int(service["LimitNOFILE"]) > settings.max_connections + settings.max_connections // 4


# Not an optional package: an environment without an init of its own would get one.
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd checks units where it is there")
def test_systemd_takes_it(tmp_path: Path) -> None:
    program = shutil.which("true")
    assert program is not None
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(PROGRAM, program), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
