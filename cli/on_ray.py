"""mass-serve ray serve: the same server by replicas on a Ray cluster (extra `ray`)."""

from __future__ import annotations

from typing import Any

import typer

from mass_serve.cli.answering_jobs import WITHOUT_RAY
from mass_serve.cli.failing import EXIT_FAILED, fail
from mass_serve.cli.setting_flags import with_setting_flags
from mass_serve.distributed.settings import RaySettings, load_ray_settings
from mass_serve.distributed.share import with_whole_paths
from mass_serve.model_store.errors import StoreError
from mass_serve.server.settings import SettingsError

ray = typer.Typer(name="ray", help="Serve a store on a Ray cluster (extra `ray`).", no_args_is_help=True)


def serve(flags: dict[str, Any]) -> None:
    """Serves a store by replicas on a Ray cluster, and takes them away on ctrl-C or SIGTERM.

    Joins the cluster that RAY_ADDRESS names or that runs on this machine, and starts one here where there is
    none. Each replica takes --num-threads cores (1), and a GPU with --device cuda.
    """
    from mass_serve.model_store.store import Store
    from mass_serve.server.startup import demo_store

    try:
        settings = with_whole_paths(load_ray_settings(flags))
        # On the cluster it would be told of in every replica's log, again and again.
        Store.open(settings.store or demo_store(), settings.trusted_keys)
    except (SettingsError, StoreError) as error:
        fail(error)
    try:
        from mass_serve.distributed import cluster, serving
    except ModuleNotFoundError:
        fail(WITHOUT_RAY)
    try:
        cluster.connect(shows_logs=True)
    except ValueError as error:
        fail(error, EXIT_FAILED)
    try:
        serving.deploy(settings)
        serving.wait_for_signal()
    except RuntimeError as error:
        fail(error, EXIT_FAILED)
    finally:
        serving.take_away()


ray.command("serve")(with_setting_flags(serve, RaySettings, argument="store"))


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(ray)
