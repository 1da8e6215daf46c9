"""The table of abuse: what strangers send, and what must come, over every dialect; and then nothing is left.

A row says what is sent on a connection of its own and what may come back: the statuses, and the code of the
error where one is told. All rows are tried against one gateway. After them no answer was a 500, no error was
logged, no secret and no prompt was said, and no slot, call in the queue, stream, task, connection or file is
held: `nothing_is_left`.
"""

import asyncio
import json
import os
import re
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from penstock.server.app import routes
from penstock.types.keys import TokenOrder
from penstock.types.principals import Principal
from tests.server.conftest import config
from tests.server.raw import connected, eventually
from tests.server.socket import connected as socket_of
from tests.server.test_guard import OPEN, path

ADMIN, APP, OTHER, SMALL = "admin-secret-0001", "app-secret-0002", "other-secret-0003", "small-secret-004"
PROMPT = "a prompt that nobody else may read"
SYSTEM = "the operator's own words"
REFUSED = frozenset(range(400, 500))
PATIENCE = 30.0

SHARE = 1 if os.environ.get("PENSTOCK_ABUSE") else 7
"""One in so many tricks each route gets in the suite, others than its neighbour; all by `make torture`."""


@pytest.fixture
def settings():
    keys = {
        "root": {"key": ADMIN, "admin": True},
        "app": APP,
        "other": OTHER,
        "small": {"key": SMALL, "models": ["demo-echo"], "routes": ["openai_chat"]},
    }
    return config(
        keys=keys,
        presets={"mine": {"model": "demo-echo", "system": SYSTEM}},
        limits=[{"by": "key", "concurrent": 3, "queue": 2, "wait": 30}],
        budgets=[{"by": "key", "usd": 1000}],
    )


class Row(NamedTuple):
    """``sent`` on a connection; ``statuses``: those of which the first answer has one, empty where it may be
    closed without; ``code``: of its error, empty for any."""

    what: str
    sent: bytes
    statuses: frozenset[int]
    code: str = ""


def http(method, target, body=None, key="", *lines):
    """The bytes of a request that is not made better on its way."""
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *lines]
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if key:
        head.append(f"Authorization: Bearer {key}")
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + data


def dialects(words=PROMPT, model="demo-echo"):
    """Every way to ask for a generation: the path, and a body that is good."""
    said = [{"role": "user", "content": words}]
    contents = {"contents": [{"parts": [{"text": words}]}]}
    part = {"id": "m", "role": "user", "parts": [{"type": "text", "text": words}]}
    return {
        "/v1/streams": {"request": {"model": model, "messages": said}},
        "/v1/chat/completions": {"model": model, "messages": said},
        "/v1/completions": {"model": model, "prompt": words},
        "/v1/responses": {"model": model, "input": words},
        "/v1/messages": {"model": model, "messages": said, "max_tokens": 9},
        "/v1beta/models/demo-echo:generateContent": contents,
        "/v1beta/models/demo-echo:streamGenerateContent?alt=sse": contents,
        "/api/chat": {"model": model, "messages": said},
        "/api/generate": {"model": model, "prompt": words},
        "/ui/chat": {"id": "chat-1", "model": model, "messages": [part]},
        "/v1/presets/mine": {"content": words},
    }


def one(*statuses):
    return frozenset(statuses)


# --- the rows ----------------------------------------------------------------------------------------


def credentials(gateway) -> Iterator[Row]:
    """Forged, expired, swapped and cut credentials, in every dialect and in every place for them."""
    minter = gateway.system.context.minter
    app = Principal("app", key="config.app")
    good = minter.make(app, TokenOrder(user="u", ttl=60)).token
    said, _, mac = good.partition(".")
    another = minter.make(app, TokenOrder(user="root")).token.partition(".")[0]
    bad = {
        "cut": APP[:-1],
        "longer": APP + "x",
        "in capitals": APP.upper(),
        "another's body under this mac": f"{another}.{mac}",
        "without a mac": said,
        "none as algorithm": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
        "a principal's name": "root",
        "huge": "A" * 20_000,
    }
    for target, body in dialects().items():
        for what, token in bad.items():
            yield Row(f"{target}: a credential {what}", http("POST", target, body, token), one(401))
        for header in ("x-api-key", "api-key", "x-goog-api-key"):
            yield Row(f"{target}: {header}", http("POST", target, body, "", f"{header}: {APP}x"), one(401))
        yield Row(f"{target}: none", http("POST", target, body), one(401))
        late = minter._wall
        minter._wall = lambda late=late: late() - 7_200
        expired = minter.make(app, TokenOrder(user="u", ttl=60)).token
        minter._wall = late
        yield Row(f"{target}: expired", http("POST", target, body, expired), one(401))
        if target != "/v1/chat/completions" and "presets" not in target:
            yield Row(f"{target}: a route that is not its own", http("POST", target, body, SMALL), one(403))


def anothers(stream, chat) -> Iterator[Row]:
    """What is another principal's, by every address that it has."""
    bare = stream[2:]
    missing = one(403, 404)
    base = f"/v1/streams/{stream}"
    for method, target in (
        ("GET", base),
        ("HEAD", base),
        ("DELETE", base),
        ("GET", f"{base}/events"),
        ("GET", f"{base}/entries"),
        ("GET", f"{base}/explanation"),
        ("POST", f"{base}/cancel"),
        ("POST", f"{base}/links"),
        ("GET", f"/v1/stream/gen/{stream}"),
        ("GET", f"/v1/stream/__link/{stream}"),
        ("GET", f"/v1/chat/completions/chatcmpl-{bare}"),
        ("GET", f"/v1/responses/resp_{bare}"),
        ("DELETE", f"/v1/responses/resp_{bare}"),
        ("POST", f"/v1/responses/resp_{bare}/cancel"),
        ("GET", f"/v1/responses/resp_{bare}/input_items"),
    ):
        body = {} if method == "POST" else None
        yield Row(f"another's: {method} {target}", http(method, target, body, OTHER), missing)
    cursor = f"Last-Event-ID: {stream}~0000000000000001"
    for target, body in dialects().items():
        if target.startswith(("/v1/chat", "/v1/streams", "/v1/messages", "/v1/presets")):
            row = http("POST", target, body, OTHER, cursor)
            yield Row(f"another's by a cursor: {target}", row, missing, "stream_not_found")
    follows = {"model": "demo-echo", "input": "x", "previous_response_id": f"resp_{bare}"}
    yield Row("another's: gone on from", http("POST", "/v1/responses", follows, OTHER), REFUSED)
    stop = http("POST", f"/ui/chat/{chat}/stop", {}, OTHER)
    yield Row("another's: the chat is stopped", stop, one(200, 204, 404))
    yield Row("another's: the chat", http("GET", f"/ui/chat/{chat}/stream", None, OTHER), one(204, 404))
    yield Row("another's: a publication", http("GET", "/v1/stream/logs/app", None, OTHER), one(403, 404))
    yield Row("another's: appended", http("POST", "/v1/stream/logs/app", {}, OTHER), one(403, 404))
    yield Row("another's: deleted", http("DELETE", "/v1/stream/logs/app", None, OTHER), one(403, 404))
    for route in routes():
        if route.path.startswith("/v1/admin/"):
            for method in sorted(route.methods - {"HEAD"}):
                row = http(method, path(route.path), {} if method == "POST" else None, OTHER)
                yield Row(f"no administrator: {method} {route.path}", row, one(403), "admin_required")
    yield Row("no administrator: files", http("GET", "/v1/files", None, OTHER), one(403), "admin_required")


TRICKS = {
    "dots": lambda p: f"/ui/..{p}",
    "dots from the page": lambda p: f"/ui/../ui/..{p}",
    "coded dots": lambda p: f"/ui/%2e%2e{p}",
    "twice coded": lambda p: f"/ui/%252e%252e{p}",
    "a coded slash": lambda p: "/" + p[1:].replace("/", "%2f"),
    "a coded slash after the page": lambda p: f"/ui%2f..{p}",
    "two slashes": lambda p: "/" + p,
    "two slashes within": lambda p: p.replace("/", "//"),
    "a back slash": lambda p: p.replace("/", "\\"),
    "a semicolon": lambda p: f"{p};/healthz",
    "a semicolon before": lambda p: f"/healthz;{p}",
    "NUL": lambda p: f"{p}%00",
    "NUL before a page": lambda p: f"/ui/index.html%00{p}",
    "overlong dots": lambda p: f"/ui/%c0%ae%c0%ae{p}",
    "an overlong slash": lambda p: f"/ui/..%c0%af{p[1:]}",
    "capitals": lambda p: p.upper(),
    "a dot behind": lambda p: f"{p}.",
    "a slash behind": lambda p: f"{p}/",
    "a coded space behind": lambda p: f"{p}%20",
    "a tab": lambda p: f"{p}%09",
    "a line end": lambda p: f"{p}%0d%0aX-Evil:%201",
    "full width": lambda p: p.replace("/", "%ef%bc%8f"),
    "full width dots": lambda p: f"/ui/%ef%bc%8e%ef%bc%8e{p}",
    "an open one as a fragment": lambda p: f"{p}%23/healthz",
    "an absolute address": lambda p: f"http://localhost{p}",
    "a user in the address": lambda p: f"http://localhost@evil.example{p}",
    "a query that is a path": lambda p: f"{p}?/healthz",
}


def paths() -> Iterator[Row]:
    """Every guarded address, dressed up as another: nobody comes in without a credential."""
    guarded = sorted({route.path for route in routes() if route.path not in OPEN})
    for number, pattern in enumerate(guarded):
        (method, *_) = sorted(m for one in routes() if one.path == pattern for m in one.methods - {"HEAD"})
        for turn, (what, dress) in enumerate(TRICKS.items(), number):
            if turn % SHARE:
                continue
            row = http(method, dress(path(pattern)), {} if method in ("POST", "PUT") else None)
            yield Row(f"{what}: {method} {pattern}", row, REFUSED)
    for step in (".", "..", "%2e%2e", "%2E."):
        for target in (f"/v1/files/{step}", f"/v1/files/{step}/content"):
            yield Row(f"a step up: {target}", http("GET", target, None, ADMIN), one(404), "not_found")
    for target in (
        "/ui/%2e%2e/%2e%2e/etc/passwd",
        "/ui/..%2f..%2fetc%2fpasswd",
        "/ui//etc/passwd",
        "/ui/%00",
    ):
        yield Row(f"a file: {target}", http("GET", target), one(404), "not_found")


EVIL = [
    "x\r\nX-Evil: 1",
    "x\nX-Evil: 1",
    "x\rX-Evil: 1",
    "x\x00",
    "\u2028X-Evil: 1",
    "嘊X-Evil: 1",
    "x\x1b[2J",
]


def injections() -> Iterator[Row]:
    """Names and ids that would end a header."""
    for evil in EVIL:
        coded = "".join(f"%{byte:02x}" for byte in evil.encode())
        for target, body in dialects().items():
            if "model" in body:
                row = http("POST", target, {**body, "model": evil}, APP)
                yield Row(f"{target}: a model {evil!r}", row, one(400, 404))
        for target in (
            f"/v1/streams/{coded}",
            f"/v1/streams/{coded}/events",
            f"/v1/responses/{coded}",
            f"/v1/chat/completions/{coded}",
            f"/v1/models/{coded}",
            f"/v1beta/models/{coded}",
            f"/v1/presets/{coded}?content=x",
            f"/v1/stream/{coded}",
        ):
            yield Row(f"in an address: {target}", http("GET", target, None, APP), REFUSED)
        for name in ("Idempotency-Key", "X-Request-ID", "Last-Event-ID", "Stream-On-Disconnect"):
            row = http("POST", "/v1/streams", dialects()["/v1/streams"], APP, f"{name}: {evil}")
            yield Row(f"{name}: {evil!r}", row, one(200, 201, *REFUSED))
        more = {**dialects()["/v1/streams"], "metadata": {evil: evil}}
        yield Row(f"metadata {evil!r}", http("POST", "/v1/streams", more, APP), one(200, *REFUSED))
        page = {**dialects()["/ui/chat"], "id": evil}
        yield Row(f"a chat {evil!r}", http("POST", "/ui/chat", page, APP), one(200, *REFUSED))


def oversized() -> Iterator[Row]:
    """Too much of everything."""
    yield Row("a long address", http("GET", "/v1/models?" + "x" * 70_000, None, APP), one(431))
    yield Row("a long path", http("GET", "/v1/streams/" + "x" * 60_000, None, APP), one(404))
    yield Row("a long header", http("GET", "/v1/models", None, APP, "X: " + "x" * 70_000), one(431))
    yield Row("many headers", http("GET", "/v1/models", None, APP, *["X: y"] * 400), one(431))
    query = "&".join(f"a{n}=b" for n in range(5_000))
    yield Row("many parameters", http("GET", f"/v1/streams?{query}", None, APP), one(200, 400))
    yield Row("a long id", http("GET", "/v1/streams", None, APP, "X-Request-ID: " + "x" * 9_000), one(200))
    long = http("POST", "/v1/streams", dialects()["/v1/streams"], APP, "Idempotency-Key: " + "k" * 9_000)
    yield Row("a long key", long, one(400))
    for target, body in dialects().items():
        head = http("POST", target, b"{}", APP)
        huge = head.replace(b"Content-Length: 2", b"Content-Length: 99999999999")[:-2]
        code = "" if "v1beta" in target else "body_too_large"  # Google's errors have none
        yield Row(f"{target}: a huge body", huge, one(413), code)
        deep = b'{"model":"demo-echo","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
        yield Row(f"{target}: deep", http("POST", target, deep, APP), one(400))
        yield Row(f"{target}: no end", http("POST", target, b"[" * 100_000, APP), one(400))
        number = json.dumps({**body, "temperature": "9"}).replace('"9"', "9" * 5_000).encode()
        yield Row(f"{target}: a long number", http("POST", target, number, APP), one(200, 400))
        if "model" in body:
            row = http("POST", target, {**body, "model": "m" * 200_000}, APP)
            yield Row(f"{target}: a long model", row, one(400, 404))
        if "messages" in body and target != "/ui/chat":
            row = http("POST", target, {**body, "messages": body["messages"] * 20_000}, APP)
            yield Row(f"{target}: many messages", row, one(200, 400, 413))


SMUGGLED = (
    b"GET /v1/admin/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + ADMIN.encode() + b"\r\n\r\n"
)

DOUBTFUL = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5, 6",
    "Content-Length: +5",
    "Content-Length: 5 5",
    "Content-Length: 0x5",
    "Content-Length: 5\r\n Content-Length: 0",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding:\x0bchunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\nTransfer-Encoding : chunked",
]


CHUNKS = [
    b"zz\r\n",
    b"-1\r\n",
    b"0x5\r\n",
    b"5;e\n",
    b"f" * 17 + b"\r\n",
    b"5\r\n123456\r\n0\r\n\r\n",
    b"\r\n5\r\n",
]


def smuggling() -> Iterator[Row]:
    """Bodies whose length is doubtful, with a request of an administrator behind them."""
    for target in dialects():
        head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {APP}\r\n"
        for lines in DOUBTFUL:
            sent = f"{head}{lines}\r\n\r\n".encode("latin-1") + b"0\r\n\r\n" + SMUGGLED
            # One that is found out after its head is closed without a word: its handler waits for the body.
            late = "xchunked" in lines
            yield Row(f"{target}: {lines!r}", sent, frozenset() if late else one(400))
        chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
        for chunk in CHUNKS:
            yield Row(f"{target}: {chunk!r}", chunked + chunk + b"12345\r\n0\r\n\r\n" + SMUGGLED, frozenset())


# --- tried ------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """What a gateway holds."""

    tasks: int
    files: int


def held():
    return Held(len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")))


@asynccontextmanager
async def nothing_is_left(gateway):
    """Whatever is done meanwhile: no error is logged, and then all is as it was before. Yields the log."""
    core, limits = gateway.system.gateway, gateway.system.lasting.limits
    # What is opened once, for whoever comes first, is no leak.
    await gateway.client.get(
        "/v1/models", headers={"authorization": f"Bearer {ADMIN}", "connection": "close"}
    )
    await eventually(lambda: not gateway.server._state.connections, PATIENCE)
    before = held()
    with capture_logs() as logs:
        yield logs
        await eventually(lambda: not core.open_streams, PATIENCE)
        await eventually(lambda: not gateway.server._state.connections, PATIENCE)
        await eventually(lambda: all(a <= b for a, b in zip(held(), before, strict=True)), PATIENCE)
    assert (limits.running, limits.waiting) == (0, 0)
    assert gateway.system.lasting.budgets.held() == 0
    assert not gateway.server._state.tasks
    assert gateway.system.context.audience.standing()[0] == 0
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []
    said = str(logs)
    for secret in (ADMIN, APP, OTHER, SMALL, PROMPT, SYSTEM):
        assert secret not in said


async def try_row(gateway, row):
    """Return what is wrong with what comes for ``row``; None if nothing is."""
    async with connected(gateway.port) as client:
        client.send(row.sent)
        if not row.sent.endswith(SMUGGLED):
            await client.to_end()
        else:
            client.half_close()
            await client.to_end()
    got, statuses = client.got, client.statuses
    head = got.partition(b"\r\n\r\n")[0].lower()
    if any(status >= 500 for status in statuses):
        return f"a failure of ours: {got[:300]!r}"
    if row.statuses and not (set(statuses[:1]) & row.statuses):
        return f"{statuses} and not {sorted(row.statuses)}: {got[:300]!r}"
    if row.code and f'"{row.code}"'.encode() not in got:
        return f"not {row.code}: {got[:300]!r}"
    if re.search(rb"(?m)^x-evil:", head) or b"\x1b" in head:
        return f"a header was put in: {head!r}"
    if row.sent.endswith(SMUGGLED) and (b"config.app" in got or b'"object":"list"' in got):
        return "what was smuggled in was served"
    for secret in (ADMIN, SYSTEM):
        if secret.encode() in got:
            return f"it says {secret}"
    if b"credential" in row.what.encode() and PROMPT.encode() in got:
        return "it says the prompt"
    return None


async def try_all(gateway, rows):
    rows = [*rows]
    wrong = [f"{row.what}: {said}" for row in rows if (said := await try_row(gateway, row)) is not None]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(rows)}:", *wrong[:20]])


async def test_credentials(gateway):
    async with nothing_is_left(gateway):
        await try_all(gateway, credentials(gateway))
    listed = await gateway.client.get("/v1/streams", headers={"authorization": f"Bearer {ADMIN}"})
    assert listed.json()["data"] == []


async def test_what_is_anothers(gateway):
    mine = {"authorization": f"Bearer {APP}"}
    async with nothing_is_left(gateway):
        asked = dialects()["/v1/streams"]
        asked = {"request": {**asked["request"], "model": "demo-stall"}, "on_disconnect": "continue"}
        head = {**mine, "prefer": "respond-async", "connection": "close"}
        made = await gateway.client.post("/v1/streams", json=asked, headers=head)
        stream = made.json()["stream"]
        text = {**mine, "content-type": "text/plain", "connection": "close"}
        put = await gateway.client.put("/v1/stream/logs/app", content=PROMPT, headers=text)
        assert put.status_code == 201
        await try_all(gateway, anothers(stream, "chat-1"))
        async with socket_of(gateway, token=OTHER) as client:
            await client.send("read", rid="1", stream=stream, after=0)
            await client.until_code("stream_not_found")
            await client.send("cancel", stream=stream)
            await client.until_code("stream_not_found")
        close = {**mine, "connection": "close"}
        found = await gateway.client.get(f"/v1/streams/{stream}", headers=close)
        assert found.json()["status"] == "open", "somebody else has stopped it"
        read = await gateway.client.get("/v1/stream/logs/app", headers=close)
        assert read.text == PROMPT
        await gateway.client.post(f"/v1/streams/{stream}/cancel", headers=close)


@pytest.mark.parametrize(
    "rows", [paths, injections, oversized, smuggling], ids=["paths", "injections", "oversized", "smuggling"]
)
async def test_no_row_does_harm(gateway, rows):
    async with nothing_is_left(gateway):
        await try_all(gateway, rows())


async def test_a_row_that_does_harm_would_be_seen(gateway):
    rows = [
        Row("open", http("GET", "/healthz"), one(401)),
        Row("another code", http("GET", "/nothing"), one(404), "admin_required"),
    ]
    with pytest.raises(AssertionError, match="2 of 2"):
        await try_all(gateway, rows)
