"""Passing requests on: embeddings, moderation, audio, images and files of OpenAI-compatible providers.

What a client sends is read as far as its model's name; the rest goes through, both ways at the pace of the
slower side. Of headers only those go through that say what a body is (`TO_PROVIDER`, `TO_CLIENT`): no
credential of a client's leaves, and no connection's business passes.

Files are the provider account's, so everybody with a key would have everybody's: with keys they are for
administrators.
"""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from penstock.gateway.relay import ROUTE, Aim, Errand, Passage
from penstock.server.bodies import arriving
from penstock.server.context import Context, context, parse_object, read_body, require_json
from penstock.server.downstream import ClientGone, Present, downstream
from penstock.server.exchanges import current_request_id, current_trace, noted
from penstock.types.calls import Call
from penstock.types.errors import ClientError, PenstockError
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest
from penstock.wire.passed_usage import tokens_asked

MAX_UPLOAD: Final = 512 << 20
"""Bytes of a body that streams through; OpenAI takes as much for a file."""

MAX_BEFORE_MODEL: Final = 64 << 10
"""Bytes of a form in which its model must be named: SDKs send fields before files."""

TO_PROVIDER: Final = ("content-type", "accept", "openai-beta", "range")
TO_CLIENT: Final = (
    *("content-type", "content-disposition", "content-range", "accept-ranges", "etag", "last-modified"),
    "openai-processing-ms",
)

_MODEL: Final = re.compile(
    rb"""\r\nContent-Disposition:[^\r\n]*\bname="?model"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,300})\r\n""",
    re.IGNORECASE,
)

_encode = msgspec.json.Encoder().encode


OPERATIONS: Final = {
    "embeddings": "embeddings",
    "moderations": "moderation",
    "rerank": "rerank",
    "audio/speech": "speech",
    "audio/transcriptions": "transcription",
    "audio/translations": "translation",
    "images/generations": "image_generation",
    "images/edits": "image_edit",
    "images/variations": "image_variation",
}
"""What each endpoint does: OpenTelemetry has a word for the first alone."""


# --- handlers ------------------------------------------------------------------------------------------


JSON_ENDPOINTS: Final = ("embeddings", "moderations", "rerank", "audio/speech", "images/generations")
FORM_ENDPOINTS: Final = ("audio/transcriptions", "audio/translations", "images/edits", "images/variations")
"""Of a provider, under ``/v1``."""


async def pass_json(request: Request) -> "Relayed":
    """A request whose body is JSON and names its model: ``/v1/embeddings`` and others."""
    return await pass_json_as(request, _path(request))


async def pass_json_as(request: Request, path: str, named: str = "") -> "Relayed":
    """The same, to the provider's ``path``; ``named`` is the model where that does not stand in the body."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    require_json(request.headers)
    body = await read_body(request, ctx.settings)
    value = parse_object(body)
    model = named or value.get("model", "")
    if not isinstance(model, str):
        raise ClientError("'model' must be a string.", code="invalid_type", param="model")
    aim = ctx.relay.aim(model, principal.grant)
    if named or (aim.target.model and aim.target.model != model):
        body = _encode({**value, "model": aim.target.model or model})
    errand = Errand("POST", path, _sent(request), body)
    return Relayed(ctx, principal, model, aim, errand, tokens=tokens_asked(value))


async def pass_form(request: Request) -> "Relayed":
    """A form with files that names its model: ``/v1/audio/transcriptions`` and others."""
    ctx = context(request)
    principal = ctx.admit(request, spends=True)
    _require_form(request.headers)
    pieces = arriving(request, MAX_UPLOAD, ctx.settings)
    start = b"\r\n"  # the first boundary need not have a line end before it
    found = None
    async for piece in pieces:
        start += piece
        found = _MODEL.search(start)
        if found or len(start) > MAX_BEFORE_MODEL:
            break
    if found is None:
        message = f"The form must name its 'model' in its first {MAX_BEFORE_MODEL >> 10} KiB."
        raise ClientError(message, code="missing_required_parameter", param="model")
    model = found[1].decode("utf-8", "replace")
    aim = ctx.relay.aim(model, principal.grant)
    named = (aim.target.model or model).encode()
    start = start[2 : found.start(1)] + named + start[found.end(1) :]
    length = _length(request)
    if length is not None:
        length += len(named) - len(found[1])
    errand = Errand("POST", _path(request), _sent(request), stream=_joined(start, pieces), length=length)
    return Relayed(ctx, principal, model, aim, errand)


async def list_files(request: Request) -> "Relayed":
    """``GET /v1/files``."""
    return _pass_file(request)


async def upload_file(request: Request) -> "Relayed":
    """``POST /v1/files``: a form."""
    return _pass_file(request)


async def see_file(request: Request) -> "Relayed":
    """``GET /v1/files/{id}``."""
    return _pass_file(request)


async def read_file(request: Request) -> "Relayed":
    """``GET /v1/files/{id}/content``."""
    return _pass_file(request)


async def delete_file(request: Request) -> "Relayed":
    """``DELETE /v1/files/{id}``."""
    return _pass_file(request)


def _pass_file(request: Request) -> "Relayed":
    ctx = context(request)
    principal = ctx.admit(request, spends=request.method != "GET")
    if ctx.guard.wants_key and not principal.admin:
        message = "Files are the provider account's: they are for administrators."
        raise ClientError(message, code="admin_required", status=403)
    if request.path_params.get("id", "") in (".", ".."):  # a step up in the provider's account
        raise ClientError("There is no such file.", code="not_found", status=404)
    stream, length = None, None
    if request.method == "POST":
        _require_form(request.headers)
        stream, length = arriving(request, MAX_UPLOAD, ctx.settings), _length(request)
    aim = ctx.relay.aim("", principal.grant)
    errand = Errand(request.method, _path(request), _sent(request), stream=stream, length=length)
    return Relayed(ctx, principal, "", aim, errand)


# --- what is sent --------------------------------------------------------------------------------------


def _path(request: Request) -> str:
    """Return the path under the provider's address, which ends in ``/v1`` where ours begins with it."""
    root: str = request.scope.get("root_path", "")
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = raw.decode("ascii", "replace").partition("?")[0].removeprefix(root).removeprefix("/v1")
    query = request.scope.get("query_string", b"").decode("ascii", "replace")
    return f"{path}?{query}" if query else path


def operation_of(path: str) -> str:
    """Return what is asked for at a provider's ``path``."""
    return OPERATIONS.get(path.partition("?")[0].strip("/"), "file")


def _sent(request: Request) -> Mapping[str, str]:
    return {name: value for name in TO_PROVIDER if (value := request.headers.get(name))}


def _require_form(headers: Mapping[str, str]) -> None:
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        message = "Send the body as a form: 'Content-Type: multipart/form-data'."
        raise ClientError(message, code="unsupported_media_type", status=415)


def _length(request: Request) -> int | None:
    told = request.headers.get("content-length", "")
    return int(told) if told.isascii() and told.isdecimal() else None


async def _joined(start: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for piece in rest:
        yield piece


# --- what comes back -----------------------------------------------------------------------------------


class Relayed:
    """The response of a request that is passed on, as it comes."""

    def __init__(
        self, ctx: Context, principal: Principal, model: str, aim: Aim, errand: Errand, *, tokens: int = 0
    ) -> None:
        """Nothing is sent until the policies have let it in. ``tokens``: about how many it sends."""
        self._ctx = ctx
        self._aim = aim
        self._errand = errand
        self._request_id = current_request_id()
        self._call = noted(
            Call(
                principal,
                ROUTE,
                GenerationRequest(model, ()),
                self._request_id,
                input_tokens=tokens,
                trace=current_trace(),
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask, send, pass on. Raises what went wrong before the status line; after it the body is cut."""
        operation = operation_of(self._errand.path)
        async with self._ctx.relay.passing(self._call, self._aim, self._errand, operation) as passage:
            status, headers = await passage.open()
            await self._hand_on(passage, status, headers, scope, receive, send)

    async def _hand_on(
        self,
        passage: Passage,
        status: int,
        headers: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        down = downstream(scope, receive, send, self._ctx.settings.send_timeout)
        told = [(name.encode(), headers[name].encode("latin-1")) for name in TO_CLIENT if name in headers]
        told += [(b"x-request-id", self._request_id.encode()), (b"cache-control", b"no-store")]
        try:
            async with Present(down):
                await down.start(status, told)
                async for piece in passage.pieces():
                    await down.write(piece)
                await down.end()
        except (ClientGone, ClientDisconnect):
            return
        except PenstockError:  # the client must see that this is not all
            down.cut()
        await down.leave()
