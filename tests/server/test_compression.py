"""gzip for what is no stream, and never for what is one."""

import gzip

import pytest
from starlette.datastructures import Headers

from penstock.server.compression import INLINE_BYTES, MIN_BYTES, Compression


async def answer(body, *, accept="gzip", method="GET", status=200, pieces=1, **headers):
    """Send ``body`` through a compression; return its head's headers, and the body that came out."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"method": method, "headers": [(b"accept-encoding", accept.encode())] if accept else []}
    out = Compression().around(scope, send)
    said = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    head = [(name.replace("_", "-").encode(), value.encode()) for name, value in said.items()]
    await out({"type": "http.response.start", "status": status, "headers": head})
    size = len(body) // pieces
    for number in range(pieces):
        last = number == pieces - 1
        piece = body[number * size :] if last else body[number * size : (number + 1) * size]
        await out({"type": "http.response.body", "body": piece, "more_body": not last})
    return Headers(raw=sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


@pytest.mark.parametrize("size", [MIN_BYTES, INLINE_BYTES + 1])
async def test_what_is_long_enough_is_compressed(size):
    headers, body = await answer(b"x" * size, vary="origin")
    assert gzip.decompress(body) == b"x" * size
    assert headers["content-encoding"] == "gzip"
    assert int(headers["content-length"]) == len(body) < size
    assert headers["vary"] == "origin, accept-encoding"


@pytest.mark.parametrize(
    "more",
    [
        {"content-type": "text/event-stream"},
        {"content-type": "application/x-ndjson"},
        {"content-type": "image/png"},
        {"content-encoding": "br"},
        {"etag": '"of these bytes"'},
        {"method": "POST"},
        {"status": 206},
        {"pieces": 2},
        {"accept": ""},
        {"accept": "br, deflate"},
        {"accept": "gzip;q=0, br"},
        {"accept": "*;q=0.0"},
    ],
    ids=str,
)
async def test_the_rest_is_left_as_it_is(more):
    headers, body = await answer(b"x" * 5000, **more)
    assert body == b"x" * 5000
    assert headers.get("content-encoding") == more.get("content-encoding")


@pytest.mark.parametrize("accept", ["", "gzip;q=0"])
async def test_who_takes_none_hears_that_others_get_something_else(accept):
    headers, body = await answer(b"x" * 5000, accept=accept, vary="origin")
    assert (headers["vary"], body) == ("origin, accept-encoding", b"x" * 5000)
    headers, _ = await answer(b"x" * 5000, accept=accept, **{"content-type": "text/event-stream"})
    assert "vary" not in headers


@pytest.mark.parametrize("accept", ["gzip", "br, GZIP;q=0.5", "*", "deflate, gzip ; q=1.0, br"])
async def test_who_takes_gzip_gets_it(accept):
    headers, _ = await answer(b"x" * 5000, accept=accept)
    assert headers["content-encoding"] == "gzip"


async def test_a_copy_of_a_page_is_good_for_both_forms(gateway):
    plain = await gateway.client.get("/", headers={"accept-encoding": "identity"})
    squeezed = await gateway.client.get("/", headers={"accept-encoding": "gzip"})
    assert plain.text == squeezed.text
    assert squeezed.headers["content-encoding"] == "gzip"
    assert squeezed.headers["etag"] == plain.headers["etag"]
    for tag in (plain.headers["etag"], plain.headers["etag"].removeprefix("W/")):
        again = await gateway.client.get("/", headers={"accept-encoding": "gzip", "if-none-match": tag})
        assert again.status_code == 304


async def test_a_stream_is_never_compressed(gateway):
    body = {"model": "demo-echo", "messages": [{"role": "user", "content": "x" * 5000}], "stream": True}
    headers = {"accept-encoding": "gzip"}
    answered = await gateway.client.post("/v1/chat/completions", json=body, headers=headers)
    events = await gateway.client.get(answered.headers["location"] + "/events", headers=headers)
    ndjson = {**headers, "accept": "application/x-ndjson"}
    lines = await gateway.client.get(answered.headers["location"] + "/events", headers=ndjson)
    text = {**headers, "accept": "text/plain"}
    plain = await gateway.client.get(answered.headers["location"] + "/events", headers=text)
    for one in (answered, events, lines, plain):
        assert one.status_code == 200
        assert "content-encoding" not in one.headers
    snapshot = await gateway.client.get(answered.headers["location"], headers=headers)
    assert snapshot.headers["content-encoding"] == "gzip"
