"""Whether the lower bounds of pyproject.toml are true: `make lowest`.

It makes an environment with the lowest version of everything that MASS Serve and its served extras say that
they take, and runs the fast tests of the command line and the server there. torch alone is the version of
constraints.txt: older ones come as builds of several gigabytes, with the libraries of a GPU.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a server in production may have.
EXTRAS = ("hub", "grpc", "tracing", "signing", "texts")
NOT_LOWEST = ("torch",)
# What the tests themselves need, in the versions of constraints.txt.
TOOLS = (
    *("pytest", "hypothesis", "httpx", "psutil", "safetensors", "tritonclient"),
    *("geventhttpclient", "gevent", "ml-dtypes", "python-rapidjson"),
)
# Of these none needs transformers, whose own bounds would lift others.
TESTS = (
    *("tests/cli/test_setting_flags.py", "tests/server/test_settings.py"),
    *("tests/server/operation", "tests/server/protocols/test_open_inference.py"),
    *("tests/server/protocols/test_native.py", "tests/server/protocols/test_multipart_forms.py"),
    *("tests/server/protocols/test_hugging_face.py", "tests/server/web/test_slow_clients.py"),
    *("tests/server/web/test_metered_parser.py", "tests/server/serving/test_keys.py"),
    *("tests/server/rpc/test_triton_client.py", "tests/server/rpc/test_contents.py"),
    *("tests/server/rpc/test_lifecycle.py", "tests/inputs/images/test_decode.py"),
)
# An old package may warn beside a new one that it needs; that is no error of ours.
PYTEST = ("-q", "-o", "filterwarnings=default")
BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([^,;\s]+)")


def lowest(pyproject: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """The lowest version of each dependency. Raises ValueError for one that names none."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    versions = {}
    for dependency in [*project["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]:
        found = BOUND.match(dependency)
        if found is None:
            raise ValueError(f"{dependency} names no lowest version")
        versions[found[1]] = found[2]
    return versions


def pinned(names: tuple[str, ...]) -> list[str]:
    """Requirements of the versions in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line)
    plain = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}
    return [f"{name}=={plain[name]}" for name in names]


def main(venv: Path) -> int:
    """Installs and tests. Returns what pytest returns."""
    python = str(venv / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    exact = [f"{name}=={version}" for name, version in lowest().items() if name not in NOT_LOWEST]
    subprocess.run([*pip, *pinned(NOT_LOWEST), *exact, *pinned(TOOLS)], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
    return subprocess.run([python, "-m", "pytest", *PYTEST, *TESTS], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
