"""mass-serve next promote, discard: what becomes of a store's next revision, `STORE#next`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.cli.store_summary import remind_to_sign
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.file_names import SIGNATURE_FILE
from mass_serve.model_store.next_store import find_next

if TYPE_CHECKING:
    from mass_serve.model_store.store import Store

commands = typer.Typer(
    help="The next revision of a store: every command takes it as STORE#next, and servers do not serve it.",
    no_args_is_help=True,
)


@commands.command()
def promote(
    store: StoreArgument,
    revision: Annotated[
        str | None, typer.Option(help="only if this is the next revision", metavar="REVISION")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Makes the next revision the store, at once; servers take it over by themselves."""
    from mass_serve.model_store import next_revision

    try:
        following = find_next(store)
        is_signed = following is not None and following.files.exists(SIGNATURE_FILE)
        promoted = next_revision.promote(store, revision)
    except StoreError as error:
        fail(error)
    _print(promoted, as_json)
    if not is_signed:
        remind_to_sign(promoted)


@commands.command()
def discard(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Deletes the next revision; the store stays as it is."""
    from mass_serve.model_store import next_revision

    try:
        kept = next_revision.discard(store)
    except StoreError as error:
        fail(error)
    _print(kept, as_json)


def _print(store: Store, as_json: bool) -> None:
    url, revision = store.files.url, store.manifest.store_revision
    if as_json:
        typer.echo(json.dumps({"store": url, "store_revision": revision}))
    else:
        typer.echo(f"{url}: revision {revision}, and no next one")


def register(app: typer.Typer) -> None:
    """Adds the group of commands."""
    app.add_typer(commands, name="next")
