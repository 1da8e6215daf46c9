"""Readers as browsers are: they come back with the last id they saw, until they are told to stop (204).

Each event is checked the moment it is seen: its position is the next one, and its data is what any
other reader saw there. A `Ledger` holds what all of them saw, to be held against the log later.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress

from penstock.wire.sse import SseDecoder, SseFrame
from tests.faults.process import PATIENCE, Gateway
from tests.server.raw import request

RETRY = 0.03
ENDS = (b"done", b"fail")


class Ledger:
    """What readers saw: by stream and position, the name and the data of the event."""

    def __init__(self) -> None:
        self.streams: dict[str, dict[int, tuple[bytes, bytes]]] = {}

    def note(self, stream: str, position: int, event: tuple[bytes, bytes]) -> None:
        seen = self.streams.setdefault(stream, {}).setdefault(position, event)
        assert seen == event, f"{stream} at {position}: {event} now, {seen} before"


class Reader:
    """One EventSource. ``position`` is how many entries it has; ``end`` its last event's name and data."""

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        *,
        stream: str = "",
        after: str = "",
        create: dict | None = None,
        key: str = "",
        receive_buffer: int = 0,
    ) -> None:
        """Read ``stream`` from ``after`` on, or create one by the native route under ``key``."""
        self.stream = stream
        self.position = -1  # not known before the first event
        self.end: tuple[bytes, dict] | None = None
        self.statuses: list[int] = []
        self.lost: dict | None = None
        self.named: Callable[[Reader], None] = lambda _: None
        self._gateway = gateway
        self._ledger = ledger
        self._after = after
        self._create = create
        self._key = key
        self._last_id = ""
        self._decoder = SseDecoder()

    def __repr__(self) -> str:
        return f"<Reader {self.stream} at {self.position}>"

    async def follow(self) -> None:
        """Read, and come back, until told to stop."""
        async with asyncio.timeout(4 * PATIENCE):
            while not await self.once() and self.lost is None:  # noqa: ASYNC110  another process's doing
                await asyncio.sleep(RETRY)

    async def once(self) -> bool:
        """Connect once and read until cut or ended; say whether a 204 said that there is no more."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        except OSError:
            return False
        try:
            writer.write(self._request())
            self._decoder = SseDecoder()
            return await self._read(reader)
        except (OSError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _request(self) -> bytes:
        headers = {"Connection": "close"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        if self.stream:
            query = f"?after={self._after}" if self._after else ""
            return request("GET", f"/v1/streams/{self.stream}/events{query}", **headers)
        return request("POST", "/v1/streams", self._create, Idempotency_Key=self._key, **headers)

    async def _read(self, reader: asyncio.StreamReader) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        self.statuses.append(status)
        if status == 204:
            return True
        assert status == 200 or (status == 503 and not self._last_id), head
        if status == 503:
            return False
        if b"content-length" in head.lower():
            for frame in self._decoder.feed(await reader.read()):
                self._take(frame)
            return False
        while size := int(await reader.readuntil(b"\r\n"), 16):
            while size:
                data = await reader.read(min(size, 65536))
                if not data:
                    return False
                size -= len(data)
                for frame in self._decoder.feed(data):
                    self._take(frame)
            await reader.readexactly(2)
        assert self.end is not None or self.lost is not None, "the body ended, and nothing said how"
        return False

    def _take(self, frame: SseFrame) -> None:
        if not frame.id:
            self.lost = json.loads(frame.data)
            return
        self._last_id = frame.id.decode()
        stream, _, printed = self._last_id.partition("~")
        position = int(printed[4:])
        if frame.event == b"stream":
            assert json.loads(frame.data)["from"] == position
            if self.position >= 0:
                assert position in (self.position, self.position - (self.end is not None))
            new = not self.stream
            self.stream, self.position = stream, position
            if new:
                self.named(self)
            return
        assert (stream, position) == (self.stream, self.position + 1), f"{self!r} was sent {self._last_id}"
        self.position = position
        self._ledger.note(stream, position, (frame.event, frame.data))
        if frame.event in ENDS:
            self.end = frame.event, json.loads(frame.data)


async def whole(gateway: Gateway, stream: str) -> list[tuple[bytes, bytes]]:
    """Return a closed stream from its first entry to its last; check that these agree with each other."""
    ledger = Ledger()
    reader = Reader(gateway, ledger, stream=stream, after="0")
    await reader.follow()
    assert reader.statuses[-1] == 204
    entries = ledger.streams[stream]
    assert list(entries) == list(range(1, len(entries) + 1))
    log = list(entries.values())
    assert [name in ENDS for name, _ in log] == [False] * (len(log) - 1) + [True]
    end = json.loads(log[-1][1])
    lines = [data for _, data in log[:-1]]
    assert [json.loads(line)["n"] for line in lines] == list(range(1, len(log)))
    assert end.get("entries", 0) == len(lines)
    assert end["sha256"] == hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
    deltas = [json.loads(line) for name, line in log if name == b"delta"]
    text = "".join(delta["delta"] for delta in deltas if delta["type"] == "text")
    assert end["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (end["status"] == "completed") == (log[-1][0] == b"done")
    return log


async def check(gateway: Gateway, ledger: Ledger, stream: str) -> dict:
    """Hold what readers saw of a closed stream against its log; return how it ended."""
    log = await whole(gateway, stream)
    for position, event in ledger.streams.get(stream, {}).items():
        assert position <= len(log), f"{stream}: entry {position} was shown and is lost"
        assert log[position - 1] == event, f"{stream}: entry {position} is not what was shown"
    await agree(gateway, stream, log)
    return json.loads(log[-1][1])


async def agree(gateway: Gateway, stream: str, log: list[tuple[bytes, bytes]]) -> None:
    """Check that a closed stream's snapshot says what its entries say."""
    end = json.loads(log[-1][1])
    shown = (await gateway.insist("GET", f"/v1/streams/{stream}")).json
    assert (shown["status"], shown["entries"]) == (end["status"], len(log))
    assert int(shown["cursor"].partition("~")[2][4:]) == len(log)
    assert hashlib.sha256(shown["text"].encode()).hexdigest() == end["text_sha256"]
    assert shown["end"].items() <= end.items()


async def listed(gateway: Gateway) -> dict[str, str]:
    """Return the status of every stream that there is, whether or not anybody was told of it."""
    found: dict[str, str] = {}
    before = ""
    while True:
        answer = await gateway.insist("GET", f"/v1/streams?limit=100{before}")
        page = answer.json
        found |= {stream["id"]: stream["status"] for stream in page["data"]}
        if not page["has_more"]:
            return found
        before = f"&before={page['data'][-1]['id']}"
