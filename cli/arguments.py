"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

StoreArgument = Annotated[str, typer.Argument(help="store folder or URL", metavar="STORE")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
