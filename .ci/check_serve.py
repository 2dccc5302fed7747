"""Runs `make serve` and holds it to the README: the answer that is shown there, and an end without an error.

For a machine that has nothing but Python: the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The set-up installs torch first.
PATIENCE_SECONDS = 600.0
# By how much, of a number above 1, another machine may round differently. The README shows float32's answer;
# a processor that multiplies bfloat16 itself rounds to 8 bits, many times over.
TOLERANCES = {"float32": 1e-4, "auto": 0.05}


def main() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    picture, target = re.findall(
        r"@(examples/images/\S+) .*?http://127\.0\.0\.1:8000(/v1/classify[^\s\"']*)", readme
    )[0]
    (shown,) = (
        block for block in re.findall(r"```json\n(.*?)```", readme, re.DOTALL) if '"results"' in block
    )
    for dtype, tolerance in TOLERANCES.items():
        compare(answer_of_server(dtype, ROOT / picture, target), json.loads(shown), tolerance)
        print(f"make serve in {dtype}: the README's answer, and exit code 0 after SIGTERM")


def answer_of_server(dtype: str, picture: Path, target: str) -> Any:
    """What a server of `make serve` answers. Raises SystemExit where it does not end well when asked to."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {"MASS_DTYPE": dtype}
    # A session of its own: make's end alone would leave the server.
    process = subprocess.Popen(
        ["make", "serve", f"PORT={port}"], cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        wait_until_ready(process, address)
        request = urllib.request.Request(address + target, picture.read_bytes())
        with urllib.request.urlopen(request, timeout=30) as answer:
            given = json.load(answer)
        print(json.dumps(given))
        stop_server(process.pid)
        code = process.wait(60)
        if code != 0:
            raise SystemExit(f"after SIGTERM `make serve` exited with {code}")
        return given
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"`make serve` exited with {process.returncode}")
        try:
            with urllib.request.urlopen(address + "/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise SystemExit(f"`make serve` was not ready within {PATIENCE_SECONDS:.0f} s")


def compare(given: Any, shown: Any, tolerance: float, where: str = "the answer") -> None:
    """Equal but for the request's id; numbers nearly."""
    if isinstance(shown, dict) and isinstance(given, dict) and shown.keys() == given.keys():
        for key in shown.keys() - {"id"}:
            compare(given[key], shown[key], tolerance, f"{where}, {key}")
    elif isinstance(shown, list) and isinstance(given, list) and len(shown) == len(given):
        for number, (one, other) in enumerate(zip(given, shown, strict=True)):
            compare(one, other, tolerance, f"{where}, {number}")
    elif isinstance(shown, float) and isinstance(given, float):
        if abs(given - shown) > tolerance * max(1.0, abs(shown)):
            raise SystemExit(f"{where}: the README shows {shown}, the server says {given}")
    elif given != shown:
        raise SystemExit(f"{where}: the README shows {shown}, the server says {given}")


def stop_server(make: int) -> None:
    """SIGTERM to what make runs: make itself would end by the signal, whatever the server did."""
    children = Path(f"/proc/{make}/task/{make}/children").read_text().split()
    if len(children) != 1:
        raise SystemExit(f"make has {len(children)} children where the server was expected")
    os.kill(int(children[0]), signal.SIGTERM)


if __name__ == "__main__":
    main()
