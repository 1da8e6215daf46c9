"""What providers say when they fail, read once for all dialects: any body → `UpstreamError`.

Owns the recognition of error shapes (`find_problem`) and the one table that sorts failures into
classes with a status, a code and whether another try may help (`upstream_error`). Strategy: words
before numbers, since providers put `insufficient_quota` and a full queue under the same 429; the
HTTP status decides where no word is known. Nothing here raises on what a provider sent.

Dialects hand in decoded JSON or whole error responses; no stream and no request enters.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import msgspec

from penstock.types.errors import UpstreamError

MAX_MESSAGE: Final = 2048
"""Bytes of UTF-8 of a provider's own message that are handed on."""

MAX_RETRY_AFTER: Final = 86_400.0
"""Seconds. A longer wait is told as this one: no client waits a day."""


class Problem(NamedTuple):
    """What an error body says, before it is judged. ``signs`` are its words that may name a class.

    ``number`` is an HTTP-like status found in the body, 0 if none; ``wait`` is in seconds.
    """

    message: str
    type: str = ""
    code: str = ""
    param: str | None = None
    signs: tuple[str, ...] = ()
    number: int = 0
    wait: float | None = None


class _Class(NamedTuple):
    """One row of the table: what a client is told."""

    status: int
    code: str
    retryable: bool


_BAD_REQUEST: Final = _Class(400, "invalid_request", False)
_CONTEXT: Final = _Class(400, "context_length_exceeded", False)
_POLICY: Final = _Class(400, "content_filter", False)
_AUTH: Final = _Class(401, "invalid_api_key", False)
_QUOTA: Final = _Class(429, "insufficient_quota", False)
_PERMISSION: Final = _Class(403, "permission_denied", False)
_NOT_FOUND: Final = _Class(404, "model_not_found", False)
_CONFLICT: Final = _Class(409, "conflict", True)
_TOO_LARGE: Final = _Class(413, "request_too_large", False)
_RATE: Final = _Class(429, "rate_limit_exceeded", True)
_GONE: Final = _Class(499, "client_closed_request", False)
_BROKEN: Final = _Class(502, "upstream_error", True)
_OVERLOADED: Final = _Class(503, "overloaded", True)
_TIMEOUT: Final = _Class(504, "timeout", True)

# Words in `code`, `type`, `status` and `reason` that say more than the HTTP status does, lower-cased.
_WORDS: Final[Mapping[str, _Class]] = {
    word: row
    for row, words in {
        _CONTEXT: "context_length_exceeded tokens_too_long characters_too_long exceed_context_size_error",
        _POLICY: "content_filter content_policy_violation data_inspection_failed datainspectionfailed "
        "datainspection unsafe_request invalid_prompt responsibleaipolicyviolation",
        _AUTH: "invalid_api_key invalidapikey api_key_invalid authentication_error unauthenticated "
        "invalid_authentication_error invalid_iam_token invalid_client unrecognizedclientexception "
        "invalidsignatureexception expiredtokenexception incompletesignature "
        "missingauthenticationtokenexception",
        _QUOTA: "insufficient_quota credit_balance_exhausted billing_error billing_hard_limit_reached "
        "billing_not_active insufficient_balance exceeded_current_quota_error arrearage "
        "enforced_spend_limit_reached prepaidbilloverdue postpaidbilloverdue commoditynotpurchased "
        "allocationquota.freetieronly",
        _PERMISSION: "permission_error permission_denied accessdenied accessdenied.unpurchased "
        "accessdeniedexception "
        "unsupported_country_region_territory",
        _NOT_FOUND: "model_not_found model.notexist not_found_error notfounderror not_found "
        "model_not_exist deploymentnotfound modelnotfound resourcenotfoundexception",
        _TOO_LARGE: "request_too_large badrequest.toolarge",
        _RATE: "rate_limit_exceeded rate_limit_error resource_exhausted slow_down requests tokens "
        "throttling throttling.ratequota throttling.allocationquota throttlingexception limitrequests "
        "servicequotaexceededexception",
        _OVERLOADED: "server_is_overloaded overloaded_error engine_overloaded_error model_overloaded "
        "service_unavailable_error unavailable_error unavailable serviceunavailable overloaded "
        "insufficient_system_resource modelservingerror modelunavailable "
        "serviceunavailableexception modelnotreadyexception",
        _BROKEN: "server_error internal_error internal_server_error internalservererror internalerror "
        "internal api_error network_error dispatch_internal_error systemerror modelservicefailed "
        "internalserverexception modelstreamerrorexception modelerrorexception",
        _TIMEOUT: "timeout_error deadline_exceeded gatewaytimeout timeout requesttimeout "
        "modeltimeoutexception",
        _BAD_REQUEST: "invalid_request_error badrequesterror invalid_argument invalidparameter "
        "validationexception",
    }.items()
    for word in words.split()
}

# Zhipu GLM has numbers for words, and no `type`; Mistral, which has one, uses some of them otherwise.
_GLM: Final[Mapping[str, _Class]] = {
    number: row
    for row, numbers in {
        _AUTH: "1000 1001 1002 1003 1004 1100",
        _QUOTA: "1113 1304 1308 1309 1310 1311",
        _NOT_FOUND: "1211",
        _BROKEN: "1234",
        _CONTEXT: "1261",
        _POLICY: "1301",
        _RATE: "1302 1303 1305",
        _OVERLOADED: "1312",
    }.items()
    for number in numbers.split()
}

_STATUSES: Final[Mapping[int, _Class]] = {
    401: _AUTH,
    402: _Class(402, "insufficient_quota", False),
    403: _PERMISSION,
    404: _NOT_FOUND,
    408: _TIMEOUT,
    409: _CONFLICT,
    413: _TOO_LARGE,
    422: _BAD_REQUEST,
    424: _BROKEN,
    429: _RATE,
    498: _OVERLOADED,  # Groq: no flex capacity
    499: _GONE,
    503: _OVERLOADED,
    504: _TIMEOUT,
    529: _OVERLOADED,  # Anthropic
}

_TOO_LONG: Final = re.compile(
    r"maximum context length|context length exceeded|prompt is too long|exceeds? the available context size"
    r"|exceeds the context length|range of input length should be|prompt tokens too long|input is too long",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{2,63}")
_CODE: Final = re.compile(r"[\w.:/-]{1,64}", re.ASCII)
_STATUS: Final = re.compile(r"[1-5]\d\d")
_SPACE: Final = re.compile(r"\s+")
_CONTROL: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_TAG: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_SECONDS: Final = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*s?\s*")


def find_problem(body: Any) -> Problem | None:
    """Return what is wrong according to ``body``, decoded JSON of any shape, or None if it has no error.

    Known: OpenAI's ``{"error": {…}}``, a string in its place, Google's one-element array, the flat
    forms of Mistral, xAI (``{"code": sentence, "error": sentence}``), DashScope and Baidu, FastAPI's
    ``detail`` and Cloudflare's ``errors``.
    """
    if isinstance(body, list):
        return find_problem(body[0]) if body else None
    if isinstance(body, str):
        return Problem(body) if body.strip() else None
    if not isinstance(body, dict):
        return None
    inner = body.get("error") or body.get("errors")
    if isinstance(inner, list):
        inner = inner[0] if inner else None
    if isinstance(inner, dict):
        if not inner.get("message") and isinstance(inner.get("error"), dict | str):
            return find_problem(inner)
        return _problem(inner, body)
    if isinstance(inner, str) and inner.strip():
        return _problem({**body, "message": body.get("message") or body.get("error_description") or inner})
    if any(isinstance(body.get(key), str) for key in ("message", "error_msg", "msg", "detail")):
        return _problem(body)
    if isinstance(body.get("detail"), list | dict):
        return _problem(body)
    return None


def upstream_error(problem: Problem, *, status: int = 0) -> UpstreamError:
    """Judge ``problem``. ``status`` is the provider's HTTP status, 0 when it stood inside a stream."""
    http = status if status >= 400 else problem.number
    row = _classify(problem, http)
    message = clean(problem.message) or _nothing_said(http)
    code = row.code
    if row is _BAD_REQUEST:
        if 400 < http < 500 and http != 422:
            row = row._replace(status=http)
        for own in (problem.code, problem.type):
            if _NAME.fullmatch(own):
                code = own
                break
    elif row is _QUOTA and http == 402:
        row = row._replace(status=402)
    elif row is _AUTH or row is _PERMISSION:
        message = f"The provider refused the gateway's credentials: {message}"
    return UpstreamError(
        message,
        code=code,
        status=row.status,
        param=problem.param,
        retryable=row.retryable,
        retry_after=problem.wait,
        type=problem.type,
        upstream_status=status,
        provider_code=_own_code(problem),
    )


def _own_code(problem: Problem) -> str:
    """Return the provider's own word or number for it; its type and an HTTP status say nothing more."""
    for sign in problem.signs:
        if sign != problem.type and not _STATUS.fullmatch(sign) and _CODE.fullmatch(sign):
            return sign
    return ""


def error_response(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read a whole error response; ``headers`` have lower-case names. Never raises.

    ``retry_after`` comes from ``retry-after-ms``, ``retry-after`` (seconds, or a date, which is held
    against the response's own ``date``) or Google's RetryInfo; ``x-should-retry`` overrules the table.
    """
    problem = _read_body(body)
    wait = _retry_after(headers)
    if wait is not None:
        problem = problem._replace(wait=wait)
    error = upstream_error(problem, status=status)
    match headers.get("x-should-retry", "").strip().lower():
        case "true":
            error.retryable = True
        case "false":
            error.retryable = False
    return error


def clean(text: str) -> str:
    """Return ``text`` on one line, without control characters, of at most `MAX_MESSAGE` bytes."""
    text = _CONTROL.sub("", _SPACE.sub(" ", text[: 4 * MAX_MESSAGE])).strip()
    data = text.encode()
    if len(data) <= MAX_MESSAGE:
        return text
    return data[: MAX_MESSAGE - 3].decode("utf-8", "ignore") + "…"


def _classify(problem: Problem, http: int) -> _Class:
    for sign in problem.signs:
        word = sign.lower()
        row = _WORDS.get(word) or (None if problem.type else _GLM.get(word))
        if row is None and word.endswith("_rate_limit_exceeded"):
            row = _RATE
        if row is None or row is _BAD_REQUEST:
            continue
        if row is _BROKEN and http not in (0, 500):
            continue  # `api_error` and the like say less than any status
        if row is _AUTH and http == 403:
            return _PERMISSION
        return row
    if http == 400 and _TOO_LONG.search(problem.message):
        return _CONTEXT
    if row := _STATUSES.get(http):
        return row
    if 400 <= http < 500:
        return _BAD_REQUEST
    if http == 0 and any(_WORDS.get(sign.lower()) is _BAD_REQUEST for sign in problem.signs):
        return _CONTEXT if _TOO_LONG.search(problem.message) else _BAD_REQUEST
    return _BROKEN


def _problem(error: Mapping[str, Any], outer: Mapping[str, Any] | None = None) -> Problem:
    """Read the object that holds the message; ``outer`` is what it stood in."""
    message = _message(error)
    code = _word(error, "code", "error_code")
    kind = _word(error, "type")
    if kind == "error":  # an event's own name, not the error's
        kind = ""
    status = _word(error, "status")
    signs = [code, kind, status]
    wait = None
    for detail in _dicts(error.get("details")):
        signs.append(_word(detail, "reason", "error_code"))
        wait = seconds(detail.get("retryDelay")) if wait is None else wait
    inner = error.get("innererror")
    if isinstance(inner, dict):
        signs.append(_word(inner, "code"))
    metadata = error.get("metadata")
    if isinstance(metadata, dict):  # OpenRouter: what its provider said, and why a moderator refused
        raw = metadata.get("raw")
        if isinstance(raw, str) and raw.strip():
            message = f"{message}: {raw}"
        if metadata.get("reasons") or metadata.get("flagged_input"):
            signs.insert(0, "content_filter")
    param = error.get("param")
    return Problem(
        message,
        kind,
        code,
        param if isinstance(param, str) and param else None,
        tuple(sign for sign in signs if sign),
        _number(error, outer or {}),
        wait,
    )


def _message(error: Mapping[str, Any]) -> str:
    for key in ("message", "error_msg", "msg", "detail", "error_description", "title"):
        value = error.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if value and isinstance(value, list | dict):  # FastAPI: a list of {loc, msg}
            return "; ".join(_detail(item) for item in _dicts(value)) or str(value)
    return ""


def _detail(item: Mapping[str, Any]) -> str:
    where = item.get("loc")
    text = str(item.get("msg") or item.get("message") or item)
    return f"{'.'.join(map(str, where))}: {text}" if isinstance(where, list) else text


def _dicts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _word(holder: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        value = holder.get(key)
        if isinstance(value, str) and value:
            return value[:256]
        if type(value) is int:
            return str(value)
    return ""


def _number(*holders: Mapping[str, Any]) -> int:
    for holder in holders:
        for key in ("code", "status", "statusCode", "status_code", "http_code"):
            value = holder.get(key)
            if isinstance(value, str) and len(value) == 3 and value.isdecimal():
                value = int(value)
            if type(value) is int and 400 <= value < 600:
                return value
    return 0


def _read_body(body: bytes) -> Problem:
    try:
        found = find_problem(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[: 16 * MAX_MESSAGE].decode("utf-8", "replace")
        if title := _TITLE.search(text):
            text = title[1]
        if "<" in text:
            text = _TAG.sub(" ", text)
        found = Problem(text)
    return found or Problem("")


def _nothing_said(http: int) -> str:
    if http:
        return f"The provider answered with status {http} and no explanation."
    return "The provider reported an error and no explanation."


def seconds(value: Any) -> float | None:
    """Read a duration such as ``20``, ``"0.5"`` or ``"27s"``; None for anything else."""
    found = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    return min(float(found[1]), MAX_RETRY_AFTER)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    milliseconds = seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    wait = seconds(value)
    if wait is not None or not value:
        return wait
    try:
        until = parsedate_to_datetime(value)
        sent = parsedate_to_datetime(headers.get("date", ""))
        return min(max((until - sent).total_seconds(), 0.0), MAX_RETRY_AFTER)
    except (ValueError, TypeError, OverflowError):
        return None
