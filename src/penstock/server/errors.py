"""Errors as responses: each in the dialect of the route it happened on, with what to do about it.

The server's one wide catch is `told`, for anything that is not a `PenstockError`: it is logged with its
trace, and the client is told no more than that it was our fault.
"""

import math

import structlog
from starlette.responses import Response
from starlette.types import Scope

from penstock.server.exchanges import current
from penstock.types.calls import ids
from penstock.types.errors import GatewayError, PenstockError
from penstock.wire import native
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES, error_status
from penstock.wire.gemini import GEMINI
from penstock.wire.ollama_clients import OLLAMA

log = structlog.get_logger(__name__)


def speaks_gemini(scope: Scope) -> bool:
    """Say whether a request is one of Google's clients'; the list of models is theirs by a header."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if path.startswith("/v1beta/"):
        return True
    if not path.startswith("/v1/models"):
        return False
    if any(name == b"x-goog-api-key" for name, _ in scope["headers"]):
        return True
    return scope.get("method") == "POST" and ":" in path


def speaks_ollama(scope: Scope) -> bool:
    """Say whether a request is one of Ollama's clients'."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.startswith("/api/")


def speaks_anthropic(scope: Scope) -> bool:
    """Say whether a request is one of Anthropic's clients'; the list of models is theirs by a header."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if path.startswith("/v1/messages"):
        return True
    return path.startswith("/v1/models") and any(name == b"anthropic-version" for name, _ in scope["headers"])


def told(error: Exception, request_id: str) -> PenstockError:
    """Return ``error`` as a client may be told of it; what nobody foresaw is logged."""
    if isinstance(error, PenstockError):
        return error
    exchange = current()
    log.error("request_crashed", **ids(request_id, exchange.stream if exchange else ""), exc_info=error)
    message = f"The gateway failed to serve this request. Quote {request_id} when you report it."
    return GatewayError(message, code="internal_error")


def error_response(error: Exception, request_id: str, scope: Scope | None = None) -> Response:
    """Return the response for ``error``, in the shape of the client that ``scope`` is from: OpenAI's
    ``{"error": {message, type, param, code, …}}``, Anthropic's, Google's or Ollama's."""
    error = told(error, request_id)
    if (exchange := current()) is not None:
        exchange.code = error.code
    headers = {**error.headers, "x-request-id": request_id, "cache-control": "no-store"}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
        if error.status == 429:  # SDKs of OpenAI and Anthropic prefer it
            headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if scope is not None and speaks_gemini(scope):
        return Response(_gemini(error, scope), error.status, headers, "application/json")
    if scope is not None and speaks_ollama(scope):
        return Response(OLLAMA.render_error(error), error.status, headers, "application/json")
    if scope is not None and speaks_anthropic(scope):
        body = ANTHROPIC_MESSAGES.render_error(error, request_id)
        return Response(body, error_status(error), headers, "application/json")
    return Response(native.render_error(error), error.status, headers, "application/json")


def _gemini(error: PenstockError, scope: Scope) -> bytes:
    """Return Google's error object; where an array would have been the answer, it is in one."""
    body = GEMINI.render_error(error)
    streams = scope["path"].endswith(":streamGenerateContent")
    return b"[%b]" % body if streams and b"alt=sse" not in scope.get("query_string", b"") else body
