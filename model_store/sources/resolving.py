"""Names of models: `hf:org/model[@revision]`, a URL that fsspec knows, or a path of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.progress import Progress, silent
from mass_serve.model_store.sources.hub import HubName, fetch_from_hub
from mass_serve.model_store.sources.local import local_model
from mass_serve.model_store.sources.resolved import Resolved
from mass_serve.model_store.sources.urls import fetch_from_url
from mass_serve.model_store.storage.files import without_credentials

_HUB = "hf:"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_FILE_PROTOCOLS = ("file", "local")  # both fsspec's names for this machine
# A web page is no folder: it cannot be listed, and says of no file whether it is still the same.
_WEB_PROTOCOLS = ("http", "https", "ftp")


def resolve(
    name: str, allow_pickle: bool = False, progress: Progress = silent, folder: Path = Path()
) -> Resolved:
    """Returns the local folder or file that a name stands for, fetching it where it is elsewhere.

    Relative paths are relative to `folder`.

    Only the files that a reader needs are fetched, pickles only where they are allowed; what is in a cache
    and is still the same is not fetched again. Raises CheckpointError, in one sentence, for a name that says
    nothing, for what does not exist or may not be read, and where it cannot be fetched.
    """
    if name.startswith(_HUB) and not name.startswith(f"{_HUB}//"):
        return fetch_from_hub(HubName.parse(name), allow_pickle, progress)
    if (url := _URL.fullmatch(name)) is None:
        return Resolved(local_model(name, folder))
    protocol, rest = url[1].lower(), url[2]
    if protocol in _FILE_PROTOCOLS:
        return Resolved(local_model(rest, folder))
    if protocol == "hf":
        raise CheckpointError(f"{name}: models of the hub are named {_HUB}org/model, here {_HUB}{rest}")
    if protocol in _WEB_PROTOCOLS:
        raise CheckpointError(
            f"{without_credentials(name)}: nothing is fetched by {protocol}:// - download it and give the"
            " folder, or name a model of the hub hf:org/model"
        )
    return fetch_from_url(name, allow_pickle, progress)
