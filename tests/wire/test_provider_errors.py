"""What providers say when they fail: every shape of body, and the table that sorts them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import UpstreamError
from penstock.wire.provider_errors import MAX_MESSAGE, clean, error_response

REFUSED = "The provider refused the gateway's credentials: "


def read(status: int, body: Any, **headers: str) -> UpstreamError:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return error_response(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def openai(message: str, type: Any = None, code: Any = None, **more: Any) -> Any:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def google(code: int, message: str, status: str, *details: Any) -> Any:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, openai("Oops"), "Oops"),
        (400, {"error": "plain string"}, "plain string"),
        (500, "just text", "just text"),
        (500, '"quoted text"', "quoted text"),
        (500, "", "The provider answered with status 500 and no explanation."),
        (502, {}, "The provider answered with status 502 and no explanation."),
        (502, "<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        (502, "<h1>Bad</h1> <style>x{}</style><p>Gateway</p>", "Bad Gateway"),
        (400, [google(400, "Bad", "INVALID_ARGUMENT")], "Bad"),
        (400, {"object": "error", "message": "Bad", "type": "invalid_request_error", "code": "1500"}, "Bad"),
        (422, {"detail": [{"loc": ["body", "top_p"], "msg": "too large"}]}, "body.top_p: too large"),
        (422, {"detail": "Bad"}, "Bad"),
        (503, {"code": "The service is currently unavailable", "error": "Sorry"}, "Sorry"),
        (400, {"code": "InvalidParameter", "message": "Bad", "request_id": "r"}, "Bad"),
        (400, {"error_code": 336003, "error_msg": "Bad"}, "Bad"),
        (500, {"success": False, "errors": [{"code": 7000, "message": "No route"}]}, "No route"),
        (500, {"error": {"error": {"message": "inner"}}}, "inner"),
        (500, {"type": "error", "error": {"type": "api_error", "message": "Oops"}}, "Oops"),
        (500, {"statusCode": 500, "message": "Internal"}, "Internal"),
        (429, openai("Slow\n  down\x07"), "Slow down"),
        (502, openai("Failed", metadata={"raw": "no route"}), "Failed: no route"),
    ],
)
def test_the_message_is_the_providers_own(status: int, body: Any, message: str):
    error = read(status, body)
    assert error.message == message
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("status", "body", "told", "code", "retryable"),
    [
        (400, openai("x", "invalid_request_error"), 400, "invalid_request_error", False),
        (400, openai("x", "invalid_request_error", "invalid_value"), 400, "invalid_value", False),
        (400, "x", 400, "invalid_request", False),
        (422, {"detail": "x"}, 400, "invalid_request", False),
        (405, "x", 405, "invalid_request", False),
        (400, openai("x", "t", "context_length_exceeded"), 400, "context_length_exceeded", False),
        (
            400,
            openai("This model's maximum context length is 4096 tokens.", "BadRequestError", 400),
            400,
            "context_length_exceeded",
            False,
        ),
        (400, openai("x", "exceed_context_size_error", 400), 400, "context_length_exceeded", False),
        (400, {"error": {"code": "1261", "message": "x"}}, 400, "context_length_exceeded", False),
        (400, openai("x", None, "content_filter"), 400, "content_filter", False),
        (400, {"code": "DataInspectionFailed", "message": "x"}, 400, "content_filter", False),
        (403, openai("x", code=403, metadata={"reasons": ["violence"]}), 400, "content_filter", False),
        (401, "x", 401, "invalid_api_key", False),
        (403, "x", 403, "permission_denied", False),
        (403, openai("x", None, "invalid_api_key"), 403, "permission_denied", False),
        (
            400,
            google(400, "x", "INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"}),
            401,
            "invalid_api_key",
            False,
        ),
        (402, "x", 402, "insufficient_quota", False),
        (429, openai("x", "insufficient_quota", "insufficient_quota"), 429, "insufficient_quota", False),
        (429, {"error": {"code": "1113", "message": "x"}}, 429, "insufficient_quota", False),
        (404, "x", 404, "model_not_found", False),
        (400, {"error": {"code": "1211", "message": "x"}}, 404, "model_not_found", False),
        (409, "x", 409, "conflict", True),
        (413, "x", 413, "request_too_large", False),
        (429, "x", 429, "rate_limit_exceeded", True),
        (429, openai("x", "rate_limit_error", "slow_down"), 429, "rate_limit_exceeded", True),
        (
            429,
            openai("x", "rate_limit_exceeded", "rpm_rate_limit_exceeded"),
            429,
            "rate_limit_exceeded",
            True,
        ),
        (400, {"error": {"code": "1302", "message": "x"}}, 429, "rate_limit_exceeded", True),
        (
            429,
            {"object": "error", "message": "x", "type": "t", "code": "1113"},
            429,
            "rate_limit_exceeded",
            True,
        ),
        (503, "x", 503, "overloaded", True),
        (529, "x", 503, "overloaded", True),
        (498, "x", 503, "overloaded", True),
        (500, openai("x", "server_error", "server_is_overloaded"), 503, "overloaded", True),
        (503, openai("x", "api_error"), 503, "overloaded", True),
        (500, openai("x", "InternalServerError", 500), 502, "upstream_error", True),
        (502, "x", 502, "upstream_error", True),
        (302, "x", 502, "upstream_error", True),
        (504, "x", 504, "timeout", True),
        (408, "x", 504, "timeout", True),
        (500, google(504, "x", "DEADLINE_EXCEEDED"), 504, "timeout", True),
        (499, "x", 499, "client_closed_request", False),
        (200, openai("x", code=402), 402, "insufficient_quota", False),
    ],
)
def test_an_error_is_sorted(status: int, body: Any, told: int, code: str, retryable: bool):
    error = read(status, body)
    assert (error.status, error.code, error.retryable) == (told, code, retryable)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_called_the_gateways(status: int):
    assert (
        read(status, openai("Incorrect API key provided")).message == REFUSED + "Incorrect API key provided"
    )


def test_the_providers_type_and_param_are_kept():
    error = read(
        400, {"error": {"message": "x", "type": "invalid_request_error", "param": "n", "code": None}}
    )
    assert (error.type, error.param) == ("invalid_request_error", "n")


DATE = "Sat, 21 Nov 2026 03:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry_after": "20"}, 20.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "999999999"}, 86_400.0),
        ({"retry_after_ms": "50", "retry_after": "1"}, 0.05),
        ({"retry_after": "Sat, 21 Nov 2026 03:00:30 GMT", "date": DATE}, 30.0),
        ({"retry_after": "Sat, 21 Nov 2026 02:00:00 GMT", "date": DATE}, 0.0),
        ({"retry_after": "Sat, 21 Nov 2026 03:00:30 GMT"}, None),
        ({"retry_after": "Sat, 21 Nov 2026 03:00:30 -0000", "date": DATE}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "soon", "date": "now"}, None),
    ],
)
def test_the_wait_is_read_from_the_headers(headers: dict[str, str], wait: float | None):
    assert read(429, "x", **headers).retry_after == wait


def test_the_wait_is_read_from_googles_retry_info():
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.25s"}
    body = google(429, "x", "RESOURCE_EXHAUSTED", {"violations": []}, info)
    assert read(429, body).retry_after == 45.25
    assert read(429, body, retry_after="3").retry_after == 3.0


@pytest.mark.parametrize(("status", "word", "retryable"), [(429, "false", False), (400, "true", True)])
def test_the_provider_may_overrule_the_table(status: int, word: str, retryable: bool):
    assert read(status, "x", x_should_retry=word).retryable is retryable


@given(st.integers(100, 999), st.binary(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_no_body_and_no_header_makes_it_raise(status: int, body: bytes, wait: str, date: str):
    error = error_response(status, {"retry-after": wait, "date": date}, body)
    assert error.message
    assert error.retry_after is None or error.retry_after >= 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "details", "detail", "metadata", "errors", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(json_values)
def test_no_json_makes_it_raise(body: Any):
    assert read(500, body).message


@given(st.text())
def test_a_clean_text_is_one_bounded_line(text: str):
    cleaned = clean(text * 3)
    assert len(cleaned.encode()) <= MAX_MESSAGE
    assert len(cleaned.splitlines()) <= 1
    assert cleaned.isprintable() or any(not ch.isascii() for ch in cleaned)


@pytest.mark.parametrize(
    ("status", "body", "code", "own"),
    [
        (500, openai("x", "server_error", "engine_hot"), "upstream_error", "engine_hot"),
        (429, openai("x", "rate_limit_error", "slow_down"), "rate_limit_exceeded", "slow_down"),
        (429, {"error": {"code": "1302", "message": "x"}}, "rate_limit_exceeded", "1302"),
        (400, {"error_code": 336003, "error_msg": "x"}, "invalid_request", "336003"),
        (503, google(503, "x", "UNAVAILABLE"), "overloaded", "UNAVAILABLE"),
        (400, openai("x", "invalid_request_error", "too_big"), "too_big", ""),  # it is ours, too
        (500, openai("x", "server_error", 500), "upstream_error", ""),  # an HTTP status is none
        (500, openai("x", "server_error", "a b\r\nc"), "upstream_error", ""),
        (500, openai("x", "server_error", "x" * 100), "upstream_error", ""),
        (500, "x", "upstream_error", ""),
    ],
)
def test_the_providers_own_code_is_kept_beside_ours(status: int, body: Any, code: str, own: str):
    error = read(status, body)
    assert (error.code, error.provider_code) == (code, own)
