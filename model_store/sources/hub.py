"""Models of the Hugging Face hub: `hf:org/model[@revision]`, through huggingface_hub and its cache.

The library honours HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN; a file whose transfer breaks off is
resumed, and files that are complete are not fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.origin import Origin, check_recordable
from mass_serve.model_store.progress import Progress
from mass_serve.model_store.sources.needed import CONFIG_FILES, needed_files
from mass_serve.model_store.sources.progress_of_bytes import bar_class
from mass_serve.model_store.sources.resolved import Resolved
from mass_serve.model_store.storage.regular_files import RegularFile, sha256_of

_NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
_SHA256, _GIT_BLOB = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_SECONDS = 20


@dataclass(frozen=True)
class HubName:
    """A repository of models, and a branch, tag or commit of it; None: its main branch."""

    repository: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `hf:org/model[@revision]`. Raises CheckpointError."""
        if (found := _NAME.fullmatch(text)) is None:
            raise CheckpointError(f"{text[:80]!r} must have the form hf:org/model or hf:org/model@revision")
        # The library makes paths of the parts, those of a revision without a check.
        if any(part in ("", ".", "..") for part in re.split("[/@]", found[0].removeprefix("hf:"))):
            raise CheckpointError(f"{text[:80]!r}: no part of a name or revision may be empty, '.' or '..'")
        check_recordable(text)
        return cls(found["repository"], found["revision"])

    def __str__(self) -> str:
        return f"hf:{self.repository}" + (f"@{self.revision}" if self.revision else "")


def fetch_from_hub(name: HubName, allow_pickle: bool, progress: Progress) -> Resolved:
    """Brings the files that a reader needs into the hub's cache. Raises CheckpointError."""
    library = _library(name)
    with _errors_explained(name, library):
        listed = _listed(name, library)
    wanted = needed_files(str(name), listed, allow_pickle)
    with _errors_explained(name, library):
        paths = [_download(name, file, library, progress) for file in wanted]
    folder = _folder_of(wanted[0], paths[0])
    if any(path != folder / file for file, path in zip(wanted, paths, strict=True)):
        raise CheckpointError(f"{name} was changed while it was fetched: run the same command again")
    files = {file: _digest(name, path) for file, path in zip(wanted, paths, strict=True)}
    return Resolved(folder, Origin(name=str(name), revision=folder.name, files=files))


def _library(name: HubName) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(f"{name} needs huggingface_hub: pip install 'mass-serve[hub]'") from error
    return huggingface_hub


def _listed(name: HubName, library: ModuleType) -> list[str]:
    """The files of the revision; where the hub cannot be asked those of its snapshot in the cache."""
    try:
        info = library.HfApi().model_info(name.repository, revision=name.revision, timeout=_SECONDS)
    except Exception as error:
        if _refused(error, library) or (cached := _cached(name, library)) is None:
            raise
        return [path.relative_to(cached).as_posix() for path in cached.rglob("*")]
    return [file.rfilename for file in info.siblings]


def _cached(name: HubName, library: ModuleType) -> Path | None:
    for file in CONFIG_FILES:
        found = library.try_to_load_from_cache(name.repository, file, revision=name.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _folder_of(file: str, path: Path) -> Path:
    """The folder that holds a file, which lies in it as it is named."""
    return path.parents[file.count("/")]


def _download(name: HubName, file: str, library: ModuleType, progress: Progress) -> Path:
    # By the revision that was asked for, not by its commit: so the cache knows it when there is no network.
    with warnings.catch_warnings():
        # The library warns before a disk is full; what ends the download is an error with a sentence of ours.
        warnings.filterwarnings("ignore", message="Not enough free disk space")
        found = library.hf_hub_download(
            name.repository,
            file,
            revision=name.revision,
            tqdm_class=bar_class(f"fetching {name}: {file}", progress),
        )
    return Path(found)


def _digest(name: HubName, path: Path) -> str:
    """Returns the SHA-256 of a file in the cache, which is named after its content.

    Raises CheckpointError where the content is another: a cache that was filled by half, or a damaged disk.
    """
    try:
        with RegularFile.open(path) as file:
            digest = sha256_of(file)
            blob = path.readlink().name if path.is_symlink() else ""
            if _SHA256.fullmatch(blob):
                intact = digest == blob
            else:
                intact = not _GIT_BLOB.fullmatch(blob) or _git_blob(file) == blob
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not intact:
        raise CheckpointError(
            f"{name}: {path.name} in the cache is not what the hub has, as after half a download: delete"
            f" {path.resolve()} and run the same command again"
        )
    return digest


def _git_blob(file: RegularFile) -> str:
    """Computes the name that git gives to a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    for chunk in file.chunks():
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _errors_explained(name: HubName, library: ModuleType) -> Iterator[None]:
    """Turns whatever the library raises into one sentence: its HTTP library has errors of its own."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{name} {_explanation(name, error, library)}") from error


def _explanation(name: HubName, error: Exception, library: ModuleType) -> str:
    errors = library.errors
    if isinstance(error, errors.GatedRepoError):
        return (
            f"is gated: accept its terms at {library.constants.ENDPOINT}/{name.repository}, and set HF_TOKEN"
            " to a token of that account or run `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "was not found on the hub: check the name; if it is private, set HF_TOKEN to a token that may"
            " read it or run `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"was not found: {name.repository} has no branch, tag or commit {name.revision or 'main'!r}"
    if (status := _status(error)) == 401:
        return "cannot be read: the hub refuses the token, which may be revoked; set HF_TOKEN to another one"
    if status == 403:
        return "cannot be read: the token may not read it; set HF_TOKEN to one that may"
    if _chain_has(error, errors.OfflineModeIsEnabled):
        return "is not in the cache, and HF_HUB_OFFLINE is set: run once without it"
    if (full := _os_error(error)) is not None and full.errno in (errno.ENOSPC, errno.EDQUOT):
        cache = library.constants.HF_HUB_CACHE
        return f"does not fit: no space is left at {cache}; set HF_HOME to another disk"
    reason = str(error.__cause__ or error).strip().split("\n", 1)[0]
    return (
        f"cannot be fetched from {library.constants.ENDPOINT} and is not in the cache: {reason}; check the"
        " network and run the same command again to go on"
    )


def _refused(error: Exception, library: ModuleType) -> bool:
    """Tells whether the hub has answered, so that a cache must not answer in its place."""
    found = (library.errors.RepositoryNotFoundError, library.errors.RevisionNotFoundError)
    return isinstance(error, found) or _status(error) in (401, 403)


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _chain_has(error: Exception, kind: type[Exception]) -> bool:
    return any(isinstance(link, kind) for link in _chain(error))


def _os_error(error: Exception) -> Any:
    return next((link for link in _chain(error) if isinstance(link, OSError) and link.errno), None)
