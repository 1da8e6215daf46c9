"""Reading an event stream in tests: as a client would, with the project's own decoder."""

import json
from dataclasses import dataclass, field

from penstock.wire.sse import SseDecoder


@dataclass
class Event:
    """One event, its data as JSON where it is that."""

    name: str
    data: object
    id: str


@dataclass
class Collected:
    """A whole response."""

    status: int
    headers: dict
    events: list[Event] = field(default_factory=list)
    raw: bytes = b""
    cut: bool = False

    @property
    def text(self) -> str:
        """The text deltas joined."""
        return "".join(e.data["delta"] for e in self.events if e.name == "delta" and e.data["type"] == "text")

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


def parse(raw: bytes) -> list[Event]:
    events = []
    for frame in SseDecoder().feed(raw):
        try:
            data = json.loads(frame.data)
        except ValueError:
            data = frame.data.decode()
        events.append(Event(frame.event.decode(), data, frame.id.decode()))
    return events


async def collect(client, method, url, *, stop_after=None, **more) -> Collected:
    """Read a streaming response to its end, or leave once ``stop_after`` events have come."""
    async with client.stream(method, url, **more) as response:
        collected = Collected(response.status_code, dict(response.headers))
        raw = b""
        try:
            async for piece in response.aiter_raw():
                raw += piece
                if stop_after is not None and len(parse(raw)) >= stop_after:
                    break
        except Exception as error:  # the body was cut: part of what is tested
            if type(error).__name__ != "RemoteProtocolError":
                raise
            collected.cut = True
    collected.raw = raw
    collected.events = parse(raw)
    return collected
