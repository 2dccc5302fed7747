"""The wheel has everything once and installs `mass_serve` alone, beside whatever else is called `kernels`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from mass_serve import __version__
from tests.server_processes import ROOT, server_process

pytestmark = pytest.mark.slow

PICTURE = ROOT / "examples" / "images" / "digits" / "seven" / "00.png"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout."""
    return _build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def _build_wheel(source: Path, folder: Path) -> Path:
    command = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    subprocess.run(command, check=True, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def _contents(wheel: Path) -> Mapping[str, int]:
    """The files of a wheel and their checksums, but for its own list of them."""
    entries = ZipFile(wheel).infolist()
    assert len(entries) == len({entry.filename for entry in entries})
    return {entry.filename: entry.CRC for entry in entries if not entry.filename.endswith("/RECORD")}


def test_it_holds_the_package_once_and_nothing_else(wheel: Path) -> None:
    names = _contents(wheel).keys()
    assert {name.partition("/")[0] for name in names} == {"mass_serve", f"mass_serve-{__version__}.dist-info"}
    held = (
        "py.typed",
        "kernels/tile_shapes.json",
        "model_store/words/clip_benchmark/Cars.json",
        "server/operation/page/page.html",
        "server/demo_store/manifest.json",
        "server/demo_samples/street.png",
    )
    assert {f"mass_serve/{name}" for name in held} <= names
    assert sum(name.endswith("pretrained.safetensors") for name in names) == 1
    assert not [name for name in names if "test" in name or "examples" in name or name.endswith(".pyc")]


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    build = (sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path))
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    # Not by tarfile: Python 3.11.2 does not know the filter that Python 3.12 and newer want to be told.
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", tmp_path], check=True)
    built = _build_wheel(tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path)
    assert _contents(built) == _contents(wheel)


@dataclass(frozen=True)
class Environment:
    """A Python that has the wheel, and everything of the one that runs the tests but the checkout."""

    folder: Path
    elsewhere: Path  # a folder that is not the checkout, where its programs run
    without_kernels: str | None  # why Hugging Face's `kernels` is not in it, if it is not

    @property
    def packages(self) -> Path:
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))

    def run(self, code: str) -> str:
        """What a program prints."""
        command = (self.folder / "bin" / "python", "-c", code)
        done = subprocess.run(command, cwd=self.elsewhere, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel and Hugging Face's `kernels`, installed together."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    into = (*PIP, "--python", str(folder / "bin" / "python"), "install", "--no-deps")
    subprocess.run((*into, str(wheel)), check=True)
    kernels = (*into, "--retries", "0", "--constraint", str(ROOT / "constraints.txt"), "kernels")
    done = subprocess.run(kernels, capture_output=True, text=True, check=False)
    missing = (
        f"Hugging Face's kernels cannot be installed: {done.stderr.strip()[-200:]}"
        if done.returncode
        else None
    )
    made = Environment(folder, tmp_path_factory.mktemp("elsewhere"), missing)
    # Of a folder that a .pth file names, the .pth files are not read: the editable install stays unseen.
    (made.packages / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def test_a_plain_checkout_needs_no_installation(tmp_path: Path) -> None:
    """A GPU machine may have the packages and a checkout, and nothing that tells the checkout's version."""
    packages, python = tmp_path / "packages", tmp_path / "environment" / "bin" / "python"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "mass_serve" not in path.name:
            (packages / path.name).symlink_to(path)
    venv.create(tmp_path / "environment", with_pip=False)
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages)}

    def version_in(folder: Path) -> subprocess.CompletedProcess[str]:
        command = (python, "-m", "mass_serve.cli", "--version")
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)

    told = version_in(ROOT)
    assert (told.returncode, told.stdout) == (0, f"mass-serve {__version__}\n"), told.stderr
    assert "No module named 'mass_serve'" in version_in(tmp_path).stderr, "nothing is installed"


def test_the_package_is_the_installed_one(environment: Environment) -> None:
    code = (
        "import mass_serve; from mass_serve.engine import Engine; print(mass_serve.__file__, Engine.__name__)"
    )
    assert environment.run(code) == f"{environment.packages / 'mass_serve' / '__init__.py'} Engine"


def test_hugging_faces_kernels_and_transformers_work_beside_it(
    environment: Environment, request: pytest.FixtureRequest
) -> None:
    if environment.without_kernels is not None:
        (pytest.fail if request.config.getoption("nothing_missing") else pytest.skip)(
            environment.without_kernels
        )
    code = """
import mass_serve.kernels, mass_serve.engine
import kernels, transformers
from kernels import get_kernel
from transformers import CLIPModel
print(kernels.__file__)
"""
    assert Path(environment.run(code)) == environment.packages / "kernels" / "__init__.py"


def test_the_demo_is_served_from_another_folder(environment: Environment) -> None:
    command = [str(environment.folder / "bin" / "mass-serve"), "serve"]
    with server_process(command, {"drain_seconds": 0}, folder=environment.elsewhere) as server:
        server.wait_until_ready()
        (result,) = server.client.post("/v1/classify", content=PICTURE.read_bytes()).json()["results"]
    assert (result["task"], result["label"]) == ("digits", "seven")
