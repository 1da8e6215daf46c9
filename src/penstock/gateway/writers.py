"""Who has written to a publication, and what of what they send is new: pure.

A *producer* numbers what it sends from 0, within an epoch that it raises when it begins anew; so a
request that is repeated because its answer was lost is known, and a producer that was replaced is
fenced off. Beside that a writer may give each append a `Stream-Seq`, which only has to grow, as text.
What is known goes into the notes of parcels: what changed with most, everything with one now and then.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from penstock.streams.parcels import COMPLETE, End, Parcel
from penstock.types.errors import ClientError

MAX_PRODUCERS: Final = 256
"""How many producers of a publication are remembered; those that wrote last."""

MAX_NAME: Final = 256
"""Characters of a producer's id, and of a `Stream-Seq`."""

COMPLETE_EVERY: Final = 32
"""After so many entries a note is complete again."""


class Producer(NamedTuple):
    """Who sends, in which epoch, and the number of what it sends."""

    id: str
    epoch: int
    seq: int


class StaleProducer(ClientError):
    """Another writer has taken over under this producer's id; ``epoch`` is its."""

    def __init__(self, epoch: int) -> None:
        """403: the writer has to stop."""
        message = f"This producer was replaced by one with epoch {epoch}. Stop, or begin a later epoch."
        super().__init__(message, code="producer_fenced", status=403, param="Producer-Epoch")
        self.epoch = epoch


class ProducerGap(ClientError):
    """Something this producer sent before is missing."""

    def __init__(self, expected: int, received: int) -> None:
        """409: the writer has to send what is missing first."""
        message = f"Producer-Seq {expected} is due, not {received}: send what lies between first."
        super().__init__(message, code="producer_gap", status=409, param="Producer-Seq")
        self.expected = expected
        self.received = received


class _Note(msgspec.Struct, omit_defaults=True):
    producers: list[Producer] = []
    stream_seq: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Note).decode


class Writers:
    """What is known of a publication's writers."""

    def __init__(self) -> None:
        """Nobody has written yet."""
        self._producers: dict[str, tuple[int, int]] = {}  # those that wrote last at the end
        self._stream_seq = ""
        self._since_complete = COMPLETE_EVERY

    def __repr__(self) -> str:
        """Say how many there are; nothing that they sent."""
        return f"<Writers {len(self._producers)} producers>"

    @property
    def wants_complete(self) -> bool:
        """Whether the next note is to be complete."""
        return self._since_complete >= COMPLETE_EVERY

    def want_complete(self) -> None:
        """Let the next note be complete, however few there were since the last one."""
        self._since_complete = COMPLETE_EVERY

    def duplicate_of(self, producer: Producer) -> int | None:
        """Return the last number that is there of ``producer``, if what it sends is there already.

        None for what is new. Raises `StaleProducer`.
        """
        epoch, seq = self._producers.get(producer.id, (-1, -1))
        if producer.epoch < epoch:
            raise StaleProducer(epoch)
        return seq if producer.epoch == epoch and producer.seq <= seq else None

    def check(self, producer: Producer | None, stream_seq: str) -> None:
        """Raise `ClientError` for what is new and must not come now: `ProducerGap` among others."""
        if producer is not None:
            epoch, seq = self._producers.get(producer.id, (-1, -1))
            if producer.epoch > epoch and epoch >= 0 and producer.seq != 0:
                message = "A new epoch of a producer begins with Producer-Seq 0."
                raise ClientError(message, code="invalid_value", param="Producer-Seq")
            expected = seq + 1 if producer.epoch == epoch else 0
            if producer.seq != expected:
                raise ProducerGap(expected, producer.seq)
        if stream_seq and stream_seq <= self._stream_seq:
            message = "Stream-Seq must be greater, as text, than the one of the append before."
            raise ClientError(message, code="stream_seq_conflict", status=409, param="Stream-Seq")

    def accept(self, producer: Producer | None, stream_seq: str, entries: int) -> bytes:
        """Take what `check` let pass, which becomes ``entries`` entries; return its note.

        The note is complete if `wants_complete` said so just before.
        """
        if producer is not None:
            self._producers.pop(producer.id, None)
            self._producers[producer.id] = (producer.epoch, producer.seq)
            if len(self._producers) > MAX_PRODUCERS:
                del self._producers[next(iter(self._producers))]
        self._stream_seq = stream_seq or self._stream_seq
        if self.wants_complete:
            self._since_complete = entries
            known = [Producer(name, *state) for name, state in self._producers.items()]
            return _encode(_Note(known, self._stream_seq)) if known or self._stream_seq else b""
        self._since_complete += entries
        if producer is None and not stream_seq:
            return b""
        return _encode(_Note([] if producer is None else [producer], stream_seq))

    def restore(self, parcels: Iterable[Parcel], end: End | None) -> None:
        """Learn from notes what a process before this one knew. Raises `ValueError` (of msgspec)."""
        notes = [(parcel.note, bool(parcel.flags & COMPLETE)) for parcel in parcels]
        self._since_complete = len(notes) if notes and notes[0][1] else COMPLETE_EVERY
        for note in [note for note, _ in notes] + ([end.note.encode()] if end else []):
            if not note:
                continue
            said = _decode(note)
            for producer in said.producers:
                self._producers.pop(producer.id, None)
                self._producers[producer.id] = (producer.epoch, producer.seq)
            self._stream_seq = said.stream_seq or self._stream_seq
