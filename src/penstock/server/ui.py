"""The chat page at ``/`` and its parts under ``/ui/``: plain files, shipped in the package.

Served from memory (`penstock.server.files`). Parts keep their names when they change, so a browser asks
each time whether its copy is still good (an ETag) and mostly hears 304.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from penstock.server.context import context
from penstock.server.files import File
from penstock.types.errors import ClientError

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Answers become elements through the sanitiser's own policy, and in no other way.
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
INDEX: Final = "index.html"
CLIENT: Final = "client/penstock.js"


async def page(request: Request) -> Response:
    """``GET /``: the chat page."""
    return serve(request, context(request).pages[INDEX], policy=POLICY)


async def part(request: Request) -> Response:
    """``GET /ui/{file}``: a script, a style, a library of the page."""
    name = request.path_params["file"]
    file = context(request).pages.get(name)
    if file is None:
        message = f"There is no part of the page called '{name[:100]}'."
        raise ClientError(message, code="not_found", status=404)
    return serve(request, file, policy=POLICY)


async def client(request: Request) -> Response:
    """``GET /client/penstock.js``: the JavaScript client, as one module that any page can import."""
    return serve(request, context(request).pages[CLIENT], policy=POLICY)


def serve(request: Request, file: File, *, policy: str) -> Response:
    """Return ``file``, or 304 when the browser's copy is the same."""
    headers = {
        "etag": file.etag,
        "cache-control": "no-cache",
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag.removeprefix("W/") in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers={**headers, "content-type": file.media_type})
