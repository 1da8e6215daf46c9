"""The description of the API: ``GET /openapi.json`` (OpenAPI 3.1), and ``GET /docs`` to read and try it.

Both need no key: the description names no model, provider or setting, only whether a key is wanted.
"""

import re
from typing import Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.server import ui
from penstock.server.context import context

VIEWER: Final = "docs/index.html"
VIEWER_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


async def document(request: Request) -> Response:
    """``GET /openapi.json``: the description, with this server's address as it was called."""
    wants_key = context(request).guard.wants_key
    described = {**request.app.state.describe(wants_key), "servers": [{"url": address(request)}]}
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    return Response(msgspec.json.encode(described), 200, headers, "application/json")


async def viewer(request: Request) -> Response:
    """``GET /docs``: the description to read and to try."""
    return ui.serve(request, context(request).pages[VIEWER], policy=VIEWER_POLICY)


def address(request: Request) -> str:
    """Return where this server is as the request called it; relative when that is no usable name.

    A proxy that ends TLS may say so: this is believed, since it changes nothing but this answer.
    """
    root = quote(request.scope.get("root_path", ""))
    host = request.headers.get("host", "")
    if not re.fullmatch(r"[\w.-]+(:\d+)?|\[[\da-fA-F:]+\](:\d+)?", host, re.ASCII):
        return root or "/"
    told = request.headers.get("x-forwarded-proto", "")
    return f"{told if told in ('http', 'https') else request.scope.get('scheme', 'http')}://{host}{root}"
