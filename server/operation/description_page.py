"""GET /docs: the OpenAPI description to read and try, by Swagger UI, which loads nothing from anywhere else.

Swagger UI comes with a package that is installed beside the server (`mass-serve[swagger]`).
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from mass_serve.server.errors import NotFoundError

router = APIRouter(include_in_schema=False)

PACKAGE = "fastapi_offline"
CONTENT_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MASS Serve: HTTP</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="description"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# The validator, whose badge Swagger UI would show, is somebody else's server.
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#description", validatorUrl: null});'
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.get("/docs")
async def description_page() -> HTMLResponse:
    """The page."""
    swagger_ui(PACKAGE)  # or it would be empty
    return HTMLResponse(PAGE, headers=HEADERS)


@router.get("/docs/start.js")
async def start() -> Response:
    """Shows the description in the page."""
    return Response(START, media_type="text/javascript", headers=HEADERS)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in CONTENT_TYPES:
        raise NotFoundError(f"There is nothing at /docs/{name[:80]!a}; the page is at /docs.")
    return Response(swagger_ui(PACKAGE)[name], media_type=CONTENT_TYPES[name], headers=HEADERS)


@cache
def swagger_ui(package: str) -> dict[str, bytes]:
    """Returns the files of Swagger UI by their names. Raises NotFoundError without the package."""
    # Found, and not imported: only its files are wanted.
    found = find_spec(package)
    if found is None or found.origin is None:
        raise NotFoundError(
            "This page needs Swagger UI: pip install 'mass-serve[swagger]'. The description itself is at"
            " /openapi.json."
        )
    folder = Path(found.origin).parent / "static"
    return {name: (folder / name).read_bytes() for name in CONTENT_TYPES}
