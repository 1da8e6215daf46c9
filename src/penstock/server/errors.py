"""Errors as responses: each in the dialect of the route it happened on, with what to do about it.

The server's one wide catch is `error_response` for anything that is not a `PenstockError`: it is
logged with its trace, and the client is told no more than that it was our fault.
"""

import math

import structlog
from starlette.responses import Response

from penstock.types.errors import GatewayError, PenstockError
from penstock.wire import native

log = structlog.get_logger(__name__)


def error_response(error: Exception, request_id: str) -> Response:
    """Return the response for ``error``, OpenAI-shaped: ``{"error": {message, type, param, code, …}}``."""
    if not isinstance(error, PenstockError):
        log.error("request_crashed", request_id=request_id, exc_info=error)
        message = f"The gateway failed to serve this request. Quote {request_id} when you report it."
        error = GatewayError(message, code="internal_error")
    headers = {"x-request-id": request_id, "cache-control": "no-store"}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(native.render_error(error), error.status, headers, "application/json")
