"""mass-serve sign: a store vouched for with a private key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mass_serve.cli.arguments import JsonOption, StoreArgument
from mass_serve.cli.failing import fail
from mass_serve.model_store.errors import StoreError
from mass_serve.model_store.format.file_names import SIGNATURE_FILE
from mass_serve.model_store.signing import SigningKey


def sign(
    store: StoreArgument,
    key: Annotated[Path, typer.Option(help="Ed25519 private key, not encrypted", metavar="PRIVATE.pem")],
    as_json: JsonOption = False,
) -> None:
    """Signs a store as it is now, for servers with --trusted-keys; after each change it is signed again.

    The signature covers the manifest, and by the hashes in it every file.
    """
    from mass_serve.model_store.sign_store import sign_store

    try:
        private = SigningKey.read(key)
        signed = sign_store(store, private)
    except StoreError as error:
        fail(error)
    if private.is_open_to_others:
        typer.echo(f"warning: other users can read {key}: chmod 600 {key}", err=True)
    revision, url = signed.manifest.store_revision, signed.files.url
    if as_json:
        typer.echo(json.dumps({"store": url, "store_revision": revision, "signature": SIGNATURE_FILE}))
    else:
        typer.echo(f"{url}: revision {revision} is signed, in {SIGNATURE_FILE}")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(sign)
