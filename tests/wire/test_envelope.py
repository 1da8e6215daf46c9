"""The WebSocket envelope against its vectors, both ways, and what must hold for any message."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.types.errors import ClientError, GatewayError
from penstock.wire import envelope
from tests.following import Following
from tests.vectors import each_vector


@each_vector("websocket/client")
def test_what_a_client_sends_is_read_or_refused(vector):
    text = vector.content["text"].encode()
    if (error := vector.content.get("error")) is None:
        message = envelope.decode_client(text)
        assert json.loads(envelope.encode(message)) == vector.content["message"]
        return
    with pytest.raises(ClientError) as caught:
        envelope.decode_client(text)
    assert caught.value.code == error["code"]
    assert envelope.rid_of(text) == error["rid"]


@each_vector("websocket/server")
def test_what_the_gateway_sends_is_read(vector):
    message = envelope.decode_server(vector.content["text"].encode())
    if (expected := vector.content["message"]) is None:
        assert message is None
        return
    assert json.loads(envelope.encode(message)) == expected
    if "record" in vector.content:
        assert bytes(message.d) == vector.content["record"].encode()


@each_vector("websocket/server")
def test_an_entry_is_written_as_the_vector_says(vector):
    if not vector.content.get("rendered"):
        return
    told = vector.content["message"]
    rest = envelope.line(told["c"].encode(), told["ev"].encode(), vector.content["record"].encode())
    assert (envelope.opens(told["rid"]) + rest).decode() == vector.content["text"] + "\n"


@each_vector("websocket/following")
def test_a_client_applies_what_is_next_and_nothing_else(vector):
    case = vector.content
    following = Following(case["rid"], case["stream"], case["after"])
    applied, asks = [], []
    for message in case["messages"]:
        step = following.take(json.dumps(message, separators=(",", ":")).encode())
        applied += [json.loads(record)["n"] for record in step.applied]
        asks += [json.loads(ask) for ask in step.asks]
    assert applied == case["applied"]
    assert asks == case["asks"]
    assert (following.position, following.state) == (case["position"], case["state"])


def test_the_request_of_a_create_keeps_its_bytes():
    text = b'{"type":"create","rid":"1","request":{ "b" : 1.0, "a":"\\u00e9"}}'
    assert bytes(envelope.decode_client(text).request) == b'{ "b" : 1.0, "a":"\\u00e9"}'


@given(st.text(min_size=1, max_size=envelope.MAX_RID), st.binary(max_size=40).map(lambda b: b.hex()))
def test_a_record_can_be_cut_out_of_the_text_whatever_the_rid(rid, delta):
    record = msgspec.json.encode({"n": 1, "type": "text", "delta": delta})
    text = (envelope.opens(rid) + envelope.line(b"c", b"delta", record)).rstrip(b"\n")
    assert text[text.index(b'"d":') + 4 : -1] == record
    assert json.loads(text)["rid"] == rid


@given(st.binary(max_size=200))
def test_nothing_that_arrives_raises_anything_unexpected(text):
    assert type(envelope.rid_of(text)) is str
    with suppress(ClientError):
        envelope.decode_client(text)


def test_an_error_says_what_its_response_would_have_said():
    error = GatewayError("Full.", code="overloaded", status=503, retryable=True, retry_after=2)
    assert json.loads(envelope.encode(envelope.failure(error, rid="7"))) == {
        "type": "err", "rid": "7", "code": "overloaded", "message": "Full.",
        "fault": "gateway", "retryable": True, "status": 503, "retry_after": 2,
    }  # fmt: skip


@pytest.mark.parametrize("text", [b'{"type":"creat"}', b'{"rid":"1"}'])
def test_a_type_that_is_none_is_answered_with_those_there_are(text):
    with pytest.raises(ClientError, match="auth, cancel, create, credit, detach, input, ping, read") as error:
        envelope.decode_client(text)
    assert (error.value.code, error.value.param) == ("invalid_request", "type")
