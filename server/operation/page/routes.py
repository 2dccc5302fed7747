"""GET /: a page to try the server with, its files, and the samples that it offers."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePath
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from mass_serve.server.errors import NotFoundError
from mass_serve.server.operation.page.samples import Samples
from mass_serve.server.web.receiving import FOR_INFERENCE

router = APIRouter(tags=["operation"])

MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOLDER = files("mass_serve.server.operation.page")
PAGE = FOLDER.joinpath("page.html").read_text(encoding="utf-8")
FILES = {
    file.name: file.read_bytes() for file in FOLDER.iterdir() if PurePath(file.name).suffix in MEDIA_TYPES
}
HEADERS = {
    # Trusted types, of which there are none: the browser itself makes no HTML of what a store says.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script';"
        " trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a page and scripts of different versions would not fit
}


@router.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(PAGE, headers=HEADERS)


async def _samples(request: Request) -> Samples:
    samples: Samples = request.app.state.samples
    return samples


OfferedSamples = Annotated[Samples, Depends(_samples)]


@router.get("/page/samples", include_in_schema=False, dependencies=FOR_INFERENCE)
async def list_samples(samples: OfferedSamples) -> JSONResponse:
    """The names of the images, and the texts, that the page offers."""
    return JSONResponse({"images": list(samples.images), "texts": samples.texts}, headers=HEADERS)


@router.get("/page/samples/{name}", include_in_schema=False, dependencies=FOR_INFERENCE)
async def sample(name: str, samples: OfferedSamples) -> Response:
    """The file of an image that the page offers."""
    if name not in samples.images:
        raise NotFoundError(f"There is no sample {name[:80]!a}; GET /page/samples lists those there are.")
    # The page gives it to its reader as a picture; by itself it is nothing that a browser would run.
    return Response(samples.images[name], media_type="application/octet-stream", headers=HEADERS)


@router.get("/page/{name}", include_in_schema=False)
async def page_file(name: str) -> Response:
    """A file that the page consists of."""
    if name not in FILES:
        raise NotFoundError(f"The page has no file {name[:80]!a}.")
    return Response(FILES[name], media_type=MEDIA_TYPES[PurePath(name).suffix], headers=HEADERS)
