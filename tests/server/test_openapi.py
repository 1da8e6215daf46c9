"""The description of the API: complete, valid, true of what is sent, and silent about the operator."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from penstock.server import shapes
from penstock.server.app import routes
from penstock.server.generations import NativeCreate
from penstock.server.openapi import describe
from penstock.server.operations import ANY, KEY, LINK, LOCAL, NEVER_ANSWERED, NOWHERE, OPERATIONS
from penstock.server.streams import LinkOrder
from tests.server.conftest import config
from tests.server.sse import collect

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
SECRETS = ("demo-echo", "sk-client", "secret-model", "app-principal")


def document(*, keys=False):
    return {**describe(routes(), keys=keys), "servers": [{"url": "/"}]}


DOCUMENT = document()


def conforms(value, schema):
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def ref(name):
    return {"$ref": f"#/components/schemas/{name}"}


# --- complete ----------------------------------------------------------------------------------------


def test_every_route_is_described_and_nothing_else():
    there = {
        (re.sub(r":\w+}", "}", route.path), method.lower())
        for route in routes()
        for method in route.methods
        if method != "HEAD" or OPERATIONS[route.endpoint].heads
    }
    described = {
        (path, method)
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert described == there
    assert set(OPERATIONS) == {route.endpoint for route in routes()}


@pytest.mark.parametrize("keys", [False, True])
def test_it_is_valid(keys):
    OpenAPIV31SpecValidator(json.loads(json.dumps(document(keys=keys)))).validate()


def test_every_code_has_the_status_that_the_protocol_says():
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| (\d+|–) \|", PROTOCOL.read_text(), re.MULTILINE)
    said = {code: int(status) for code, status in rows if status != "–"}
    told = {
        code: status for o in OPERATIONS.values() for codes in o.refuses for code, status in codes.items()
    }
    told |= KEY | LOCAL | LINK | NOWHERE | ANY
    ended = {"cancelled", "gateway_restarted", "gateway_shutdown"}  # as answers they have a status
    assert {code: status for code, status in told.items() if code not in ended} == {
        code: status for code, status in said.items() if code not in NEVER_ANSWERED
    }


@pytest.mark.parametrize(
    ("shape", "used"), [(shapes.StreamRequest, NativeCreate), (shapes.LinkRequest, LinkOrder)]
)
def test_bodies_are_described_as_they_are_read(shape, used):
    assert shape.__struct_fields__ == used.__struct_fields__
    assert shape.__struct_defaults__ == used.__struct_defaults__


# --- true --------------------------------------------------------------------------------------------

ASK = {"model": "demo-tools", "messages": [{"role": "user", "content": "Hello"}]}


async def test_events_are_as_described(gateway):
    read = await collect(gateway.client, "POST", "/v1/streams", json={"request": ASK})
    assert {"stream", "start", "delta", "usage", "finish", "done"} <= set(read.names)
    by_name = {
        event["properties"]["event"]["const"]: event["properties"]["data"]["contentSchema"]
        for event in DOCUMENT["components"]["schemas"]["NativeEvent"]["oneOf"]
    }
    for event in read.events:
        conforms(event.data, by_name[event.name])
        conforms({"event": event.name, "data": json.dumps(event.data), "id": event.id}, ref("NativeEvent"))


async def test_a_failure_is_as_described(gateway):
    read = await collect(
        gateway.client, "POST", "/v1/streams", json={"request": {**ASK, "model": "demo-error"}}
    )
    assert read.names[-1] == "fail"
    fail = DOCUMENT["components"]["schemas"]["NativeEvent"]["oneOf"][-1]["properties"]
    assert fail["event"]["const"] == "fail"
    conforms(read.events[-1].data, fail["data"]["contentSchema"])


async def test_lines_are_as_described(gateway):
    response = await gateway.client.get("/stream?content=x", headers={"accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert len(lines) > 3
    for line in lines:
        conforms(line, ref("NativeLine"))


async def test_chunks_are_as_described(gateway):
    read = await collect(gateway.client, "POST", "/v1/chat/completions", json={**ASK, "stream": True})
    assert read.events[-1].data == "[DONE]"
    for event in read.events[:-1]:
        conforms(event.data, ref("ChatChunk"))


async def test_entries_are_as_described(gateway):
    read = await collect(gateway.client, "POST", "/v1/streams", json={"request": ASK})
    stream = read.headers["stream-id"]
    for path, name in (("/entries", "EntryPage"), ("", "StreamSnapshot")):
        conforms((await gateway.client.get(f"/v1/streams/{stream}{path}")).json(), ref(name))


async def test_what_is_possible_at_an_address_is_said(gateway):
    for path, item in DOCUMENT["paths"].items():
        response = await gateway.client.request("PATCH", re.sub("{.*?}", "x", path))
        assert response.status_code == 405
        allowed = set(response.headers["allow"].lower().split(", ")) - {"head"}
        assert allowed == set(item) - {"parameters", "head"}


# --- served ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "gateway.example:81"}, "http://gateway.example:81"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080"),
        ({"host": "gateway.example", "x-forwarded-proto": "https"}, "https://gateway.example"),
        ({"host": "gateway.example", "x-forwarded-proto": "javascript"}, "http://gateway.example"),
        ({"host": '"><script>'}, "/"),
        ({"host": "["}, "/"),
    ],
)
async def test_it_names_the_server_as_it_was_called(gateway, headers, expected):
    response = await gateway.client.get("/openapi.json", headers=headers)
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {**json.loads(json.dumps(DOCUMENT)), "servers": [{"url": expected}]}


async def test_without_keys_it_wants_none(gateway):
    document = (await gateway.client.get("/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"link"}
    assert document["paths"]["/v1/streams"]["post"]["security"] == []
    assert "401" not in document["paths"]["/v1/streams"]["get"]["responses"]
    assert "403" in document["paths"]["/v1/streams"]["get"]["responses"]


async def test_the_viewer_is_our_own(gateway):
    response = await gateway.client.get("/docs")
    assert response.status_code == 200
    assert "http" not in re.sub(r"<!doctype html>", "", response.text)
    assert "unsafe" not in response.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="(ui/[^"]+)"', response.text):
        assert (await gateway.client.get(f"/{path}")).status_code == 200


class TestWithKeys:
    @pytest.fixture
    def settings(self):
        models = {"secret-model": [{"provider": "demo", "model": "demo-echo"}]}
        return config(keys={"app-principal": "sk-client-secret"}, models=models)

    async def test_it_says_so_and_nothing_else_of_the_operator(self, gateway):
        response = await gateway.client.get("/openapi.json")
        document = response.json()
        schemes = {"bearer", "x-api-key", "api-key", "x-goog-api-key", "link"}
        assert set(document["components"]["securitySchemes"]) == schemes
        assert {"bearer": []} in document["paths"]["/v1/streams"]["post"]["security"]
        assert document["paths"]["/healthz"]["get"]["security"] == []
        assert "401" in document["paths"]["/v1/streams"]["get"]["responses"]
        assert not [word for word in SECRETS if word in response.text]
