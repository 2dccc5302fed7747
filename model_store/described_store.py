"""A store as its manifest describes it: what is to be known without reading a tensor, and so without torch.

DescribedStore.open("my-store").manifest.tasks
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from mass_serve.model_store.errors import ManifestError, StoreError
from mass_serve.model_store.format.file_names import MANIFEST_FILE
from mass_serve.model_store.format.journal import JOURNAL_FILE
from mass_serve.model_store.format.manifest import Manifest, parse_manifest
from mass_serve.model_store.signing import TrustedKeys, signed_manifest
from mass_serve.model_store.storage.files import StoreFiles
from mass_serve.model_store.storage.opening import open_files


class DescribedStore:
    """The files of one version of a store, and its manifest as it was when it was opened."""

    def __init__(self, files: StoreFiles, manifest: Manifest) -> None:
        self.files = files
        self.manifest = manifest

    @classmethod
    def open(cls, url: str | os.PathLike[str], trusted_keys: Path | None = None) -> Self:
        """Opens the store in a local folder or at any fsspec URL.

        Raises ManifestError when there is none, or none that this program can read; with a PEM file of
        `trusted_keys` SignatureError for one that was not signed with any of them.
        """
        return cls.open_files(open_files(url), trusted_keys)

    @classmethod
    def open_files(cls, files: StoreFiles, trusted_keys: Path | None = None) -> Self:
        """Opens the store that these files are. Raises ManifestError and SignatureError."""
        # Read anew each time, so that keys come and go without a restart.
        trusted = None if trusted_keys is None else TrustedKeys.read(trusted_keys)
        try:
            content = files.read_bytes(MANIFEST_FILE) if trusted is None else signed_manifest(files, trusted)
        except (FileNotFoundError, NotADirectoryError) as error:
            unfinished = files.exists(JOURNAL_FILE)
            advice = "its build has not finished: run the same build again" if unfinished else "build one"
            raise ManifestError(f"there is no store at {files.url}: {advice}") from error
        except OSError as error:
            raise StoreError(
                f"{MANIFEST_FILE} in {files.url} cannot be read: {error.strerror or error}"
            ) from error
        return cls(files, parse_manifest(content))
