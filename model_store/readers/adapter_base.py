"""Which model a PEFT adapter changes: `base_model_name_or_path` of its adapter_config.json.

That is a folder of the machine that it was trained on, or a name of the hub. What an adapter changes is small
beside its base, so that nothing but this name tells one of another model of the same sizes.
"""

from __future__ import annotations

from pathlib import Path

from mass_serve.model_store.errors import CheckpointError
from mass_serve.model_store.format.origin import Origin
from mass_serve.model_store.readers.json_files import read_json_object
from mass_serve.model_store.readers.weight_files import ADAPTER_CONFIG

BASE_NAME = "base_model_name_or_path"


def base_folder(adapter: Path) -> Path | None:
    """Returns the folder of an adapter's base; None where there is none on this machine."""
    name = _base_name(adapter)
    # An empty name would be the folder that the program was started in.
    return Path(name) if isinstance(name, str) and name and Path(name).is_dir() else None


def refuse_other_base(task: str, adapter: Path, origin: Origin | None) -> None:
    """Raises CheckpointError unless an adapter names the model that was fetched from `origin`."""
    name = _base_name(adapter)
    said = f"task {task}: {adapter / ADAPTER_CONFIG}: {BASE_NAME} is {name!r}"
    if origin is None:
        raise CheckpointError(
            f"{said}, which is no folder here, and the store was built from a folder and does not say whether"
            " its pretrained model is that one: pass --force if it is"
        )
    if not _is_named(origin, name):
        raise CheckpointError(
            f"{said}, but the pretrained model is {origin.name}: give the model that the adapter was trained "
            "on as the pretrained one, or --force to take it all the same"
        )


def _base_name(adapter: Path) -> object:
    return read_json_object(adapter / ADAPTER_CONFIG).get(BASE_NAME)


def _is_named(origin: Origin, name: object) -> bool:
    """Tells whether a name is that of `hf:org/model@revision`; the hub's oldest models had no `org/`."""
    repository = origin.name.removeprefix("hf:").split("@")[0].rstrip("/")
    return name in (repository, origin.name, repository.split("/")[-1])
