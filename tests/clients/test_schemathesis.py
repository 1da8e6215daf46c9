"""Schemathesis reads the description and tries everything: what it allows, and what it forbids.

Every operation, against a running gateway without and with keys: no answer may be one that is not
described, and nothing may be accepted that is described as wrong. Events are held against their schemas.
"""

import json
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.core import NotSet

from penstock.server.app import routes
from penstock.server.openapi import describe
from tests.clients.gateway import Gateway, serving

pytestmark = pytest.mark.timeout(180)  # it computes more than it waits

KEY = "sk-for-schemathesis"
EXAMPLES = 8

WELL_FORMED = ["2xx", 304, 404, 409, 410, 416, 422]
"""What follows the rules may still be of a stream that is gone, beyond its tail, or used before."""


def config(*, thorough: bool) -> schemathesis.Config:
    """``thorough``: beside examples by chance, each value of each parameter and member in turn."""
    return schemathesis.Config.from_dict(
        {
            "generation": {"codec": "ascii"},
            "phases": {"coverage": {"enabled": thorough}},
            "checks": {"positive_data_acceptance": {"expected-statuses": WELL_FORMED}},
            "operations": [
                {  # wants one of two parameters, which cannot be described
                    "include-name": "POST /v1/streams/cancel",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400]}},
                },
                {  # there is no provider here that anything could be passed on to, and files are not for all
                    "include-path-regex": "^/v1/(embeddings|moderations|rerank|audio/|images/|files)"
                    "|/{model}/embeddings$",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400, 403]}},
                },
                {  # may go on from a response that is not there
                    "include-path-regex": "^/v1/responses(/input_tokens)?$",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400]}},
                },
                {  # whom they are for, and what they may be given, is the operator's word
                    "include-path-regex": "^/v1/(admin/|tokens|presets)",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400, 403]}},
                },
                {  # a message says something, in one of many kinds of parts, and a chat has a printable name
                    "include-path-regex": "^/ui/chat",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400]}},
                },
                {  # a part says something in one of many ways, some of which want more than is described
                    "include-path-regex": "^/v1(beta)?/models/.*:",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400]}},
                },
                {  # its request is one of a dialect
                    "include-name": "POST /v1/streams",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400]}},
                },
                {  # streams of others are for administrators to list
                    "include-name": "GET /v1/streams",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 403]}},
                },
                {  # where nothing can be published, which is said so; a link may be no good
                    "include-path": "/v1/stream/__link/{stream}",
                    "checks": {
                        "unsupported_method": {"enabled": False},
                        "positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400, 403]},
                    },
                },
                {  # their headers belong together, and content has to be of the stream's kind
                    "include-path": "/v1/stream/{path}",
                    "checks": {"positive_data_acceptance": {"expected-statuses": [*WELL_FORMED, 400, 403]}},
                },
            ],
        }
    )


SETTINGS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

MODELS = {"*": [{"provider": "demo", "model": "demo-echo"}]}
SERVED = {
    "publications": {"long_poll": 0.2},
    "providers": {"demo": {"kind": "scripted", "speed": 0}},
    "models": MODELS,
    "default_model": "echo",
    "presets": {"0": {"variables": {"x": {"default": "y"}}, "content": "{{content}} {{x}}"}},
}


def schema(*, keys: bool, thorough: bool):
    """The description; what it says of events as version 3.2 says it, which Schemathesis understands."""
    described = {**describe(routes(), keys=keys), "servers": [{"url": "/"}]}
    if thorough:  # each dialect's own route has its requests in turn: around them one is enough
        described["components"]["schemas"]["StreamRequest"]["anyOf"][1:] = []
    return schemathesis.openapi.from_dict(
        json.loads(json.dumps(described), object_hook=_newer), config=config(thorough=thorough)
    )


def _newer(value: dict) -> dict:
    return {"itemSchema": value["x-itemSchema"]} if "x-itemSchema" in value else value


# One records for as long as it is told, the other has no end; engines are the same handlers as deployments.
LEFT_OUT = "^/v1/admin/(profile|activity)$|^/v1/engines/"
OPEN = schema(keys=False, thorough=True).exclude(path_regex=LEFT_OUT)
# By what is left out: `include` is without effect where the configuration names operations.
THERE = schema(keys=False, thorough=False).exclude(path_regex=r"^(?!.*\{stream\})").exclude(method="DELETE")
LOCKED = schema(keys=True, thorough=False).exclude(path_regex=LEFT_OUT)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    with serving(tmp_path_factory.mktemp("open"), SERVED) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def locked(tmp_path_factory) -> Iterator[Gateway]:
    with serving(
        tmp_path_factory.mktemp("locked"), {**SERVED, "keys": {"app": {"key": KEY, "admin": True}}}
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def stream(gateway) -> str:
    """A stream that is there."""
    return httpx.get(f"{gateway.url}/stream?content=x").raise_for_status().headers["stream-id"]


def call(case, gateway, **headers):
    """Make the call and hold the answer against the description."""
    if not isinstance(case.body, NotSet | bytes):
        case.body = json.loads(json.dumps(case.body), parse_float=_number)
    if case.operation.path == "/v1/stream/{path}" and (case.query or {}).get("live") == "sse":
        # The answer would go on until somebody closes the stream.
        httpx.post(f"{gateway.url}{case.formatted_path}", headers={"Stream-Closed": "true", **headers})
    case.call_and_validate(base_url=gateway.url, timeout=20, headers=headers)


def _number(text: str) -> float | int:
    """Read a number as JavaScript would write it: to JSON Schema 1.0 is an integer, to the gateway 1 is."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


@OPEN.parametrize()
@SETTINGS
def test_without_keys_everything_is_as_described(case, gateway):
    call(case, gateway)


@THERE.parametrize()
@SETTINGS
def test_a_stream_that_is_there_is_as_described(case, gateway, stream):
    if case.meta.generation.mode.is_negative:
        return
    case.path_parameters["stream"] = stream
    for given in (case.headers, case.query):
        for name, value in (given or {}).items():
            if "~" in str(value):  # a cursor of that stream, then
                given[name] = f"{stream}~{value.partition('~')[2]}"
    call(case, gateway)


@LOCKED.parametrize()
@SETTINGS
def test_with_keys_everything_is_as_described(case, locked):
    call(case, locked, Authorization=f"Bearer {KEY}")
