"""The page at ``/``: a plain file, shipped in the package, read once at start."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from penstock.server.context import context

POLICY = "default-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'"


def read_page(name: str) -> str:
    """Return the text of the page ``name``."""
    return (files("penstock.server") / "pages" / name).read_text(encoding="utf-8")


async def page(request: Request) -> Response:
    """``GET /``: its scripts and styles are its own, and no other site may frame it."""
    return HTMLResponse(
        context(request).page, headers={"content-security-policy": POLICY, "cache-control": "no-cache"}
    )
