"""Checking what a reader was given: order, completeness and digests of one native stream.

Fed the `data` of native events as they came, it says at the end whether they are all of the stream and
as the gateway stored them. Needs no more than the events themselves, so a client can do it as well.
What a reader that did not begin at the start, or that had deltas merged, can check is less: its order,
and the digest of the text where it has all of it.
"""

import hashlib

import msgspec

from penstock.types.events import AnyEvent, Closed, TextDelta, decode_line


class _Numbered(msgspec.Struct):
    n: int = 0


_decode_number = msgspec.json.Decoder(_Numbered).decode


class Verdict(msgspec.Struct, frozen=True):
    """What was found. ``problems`` is empty when everything that could be checked is right.

    ``status`` is how the stream ended, empty when its end did not come; ``entries`` counts what came.
    """

    status: str
    entries: int
    characters: int
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the stream is whole and as it was stored."""
        return not self.problems


class Verifier:
    """Takes a stream's entries one by one."""

    def __init__(self) -> None:
        """Stand before the first entry."""
        self._seq = 0
        self._characters = 0
        self._digest = hashlib.sha256()
        self._text_digest = hashlib.sha256()
        self._closed: Closed | None = None
        self._problems: list[str] = []

    def __repr__(self) -> str:
        """Say how far it has come, and nothing of the content."""
        return f"<Verifier {self._seq} entries, {len(self._problems)} problems>"

    def feed(self, data: bytes) -> AnyEvent | None:
        """Take the data of the next entry, without its line end; return its event, None for no entry.

        Never raises: what cannot be read is a problem.
        """
        try:
            seq = _decode_number(data).n
            event = decode_line(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._problems.append(f"what came after entry {self._seq} cannot be read")
            return None
        if self._closed is not None:
            self._problems.append(f"entry {seq} came after the end")
        elif seq != self._seq + 1:
            self._problems.append(f"entry {seq} came after entry {self._seq}")
        self._seq = max(seq, self._seq)
        if type(event) is Closed:
            self._closed = event
            return event
        self._digest.update(data + b"\n")
        if type(event) is TextDelta and not event.index:
            self._text_digest.update(event.delta.encode())
            self._characters += len(event.delta)
        return event

    def verdict(self) -> Verdict:
        """Say what was found up to now."""
        problems = list(self._problems)
        closed = self._closed
        if closed is None:
            problems.append("the stream's end is missing")
            return Verdict("", self._seq, self._characters, tuple(problems))
        if closed.entries != self._seq - 1:
            problems.append(f"the end tells of {closed.entries} entries, {self._seq - 1} came")
        if closed.sha256 != self._digest.hexdigest():
            problems.append("the entries are not those that were stored (sha256 differs)")
        if closed.text_sha256 != self._text_digest.hexdigest():
            problems.append("the text is not the one that was stored (text_sha256 differs)")
        return Verdict(closed.status, self._seq, self._characters, tuple(problems))
