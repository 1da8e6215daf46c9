"""The least that a WebSocket client does to lose nothing and repeat nothing: a position, and one rule.

An entry is applied if it is the next one of the stream that is open; one that the client has is passed
over; one that leaves a gap is not applied, and the stream is read again from the client's position.
"""

from typing import NamedTuple

from penstock.types.positions import Position, parse_cursor
from penstock.wire import envelope


class Step(NamedTuple):
    """What came of one message: records that are applied, and messages to be sent."""

    applied: list[bytes]
    asks: list[bytes]


class Following:
    """One generation under one rid."""

    def __init__(self, rid: str, stream: str = "", position: int = 0) -> None:
        self.rid = rid
        self.stream = stream
        self.position = position
        self.epoch = 0
        self.state = "open"
        self.error = None
        self._rereading = False

    @property
    def cursor(self) -> str:
        return f"{self.stream}~{Position(self.epoch, self.position)}"

    def take(self, text: bytes) -> Step:
        """Take a message that came; those of other rids change nothing."""
        message = envelope.decode_server(text)
        if message is None or getattr(message, "rid", None) != self.rid:
            return Step([], [])
        match message:
            case envelope.Open(stream=stream, c=c):
                at = parse_cursor(c).position
                self.stream, self.epoch, self.position = stream, at.epoch, at.entries
                self.state, self._rereading = "open", False
            case envelope.EntryMessage(c=c, d=record) | envelope.End(c=c, d=record):
                stream, at = parse_cursor(c)
                if stream != self.stream or self._rereading or at.entries <= self.position:
                    return Step([], [])
                if at.entries > self.position + 1:
                    self._rereading = True
                    again = envelope.Read(self.rid, self.stream, self.cursor)
                    return Step([], [envelope.encode(again)])
                self.position, self.epoch = at.entries, at.epoch
                if type(message) is envelope.End:
                    self.state = "ended"
                return Step([bytes(record)], [])
            case envelope.Nothing():
                self.state = "ended"
            case envelope.Err():
                self.state, self.error = "failed", message
        return Step([], [])
