"""What of a producer's appends is new, what came before, and what must not come now."""

import pytest

from penstock.gateway.writers import (
    COMPLETE_EVERY,
    MAX_PRODUCERS,
    Producer,
    ProducerGap,
    StaleProducer,
    Writers,
)
from penstock.streams.parcels import COMPLETE, Parcel
from penstock.types.errors import ClientError


class Pen:
    """Sends as a writer would, and keeps the notes as the log would."""

    def __init__(self):
        self.writers = Writers()
        self.parcels = []

    def send(self, *producer, stream_seq="", entries=1):
        sender = Producer(*producer) if producer else None
        if sender and self.writers.duplicate_of(sender) is not None:
            return False
        self.writers.check(sender, stream_seq)
        complete = self.writers.wants_complete
        note = self.writers.accept(sender, stream_seq, entries)
        self.parcels += [Parcel(COMPLETE if complete else 0, 0, note, b"")]
        self.parcels += [Parcel(0, 0, b"", b"")] * (entries - 1)
        return True

    def restarted(self):
        """The same, as the next process knows it: from the last complete note on."""
        pen = Pen()
        first = max(n for n, parcel in enumerate(self.parcels) if parcel.flags & COMPLETE)
        pen.writers.restore(self.parcels[first:], None)
        pen.parcels = self.parcels
        return pen


def test_what_comes_again_is_known_and_the_next_is_new():
    pen = Pen()
    assert pen.send("a", 0, 0)
    assert not pen.send("a", 0, 0)
    assert pen.send("a", 0, 1)
    assert pen.writers.duplicate_of(Producer("a", 0, 0)) == 1
    assert pen.writers.duplicate_of(Producer("b", 0, 0)) is None


def test_a_gap_says_what_is_due():
    pen = Pen()
    pen.send("a", 0, 0)
    for producer, expected in ((("a", 0, 2), 1), (("b", 0, 3), 0)):
        with pytest.raises(ProducerGap) as gap:
            pen.send(*producer)
        assert (gap.value.expected, gap.value.received) == (expected, producer[2])


def test_a_later_epoch_begins_at_zero_and_fences_the_one_before_off():
    pen = Pen()
    pen.send("a", 0, 0)
    with pytest.raises(ClientError, match="begins with Producer-Seq 0"):
        pen.send("a", 1, 1)
    assert pen.send("a", 1, 0)
    with pytest.raises(StaleProducer) as stale:
        pen.send("a", 0, 1)
    assert stale.value.epoch == 1


def test_stream_seq_grows_as_text():
    pen = Pen()
    pen.send(stream_seq="2")
    for seq in ("10", "2"):
        with pytest.raises(ClientError, match="greater"):
            pen.send(stream_seq=seq)
    assert pen.send(stream_seq="20")


def test_what_a_restart_has_to_know_is_in_the_notes():
    pen = Pen()
    pen.send("early", 0, 0)
    for seq in range(COMPLETE_EVERY * 2 + 3):
        pen.send("busy", 0, seq, stream_seq=f"{seq:03}")
    pen.send("late", 5, 0, entries=4)
    after = pen.restarted()
    assert not after.send("early", 0, 0)
    assert not after.send("busy", 0, COMPLETE_EVERY * 2 + 2)
    assert after.send("late", 5, 1)
    with pytest.raises(ClientError, match="greater"):
        after.send(stream_seq="000")


def test_those_that_wrote_last_are_remembered():
    pen = Pen()
    for number in range(MAX_PRODUCERS):
        pen.send(f"p{number}", 0, 0)
    pen.send("p0", 0, 1)
    pen.send("new", 0, 0)
    assert pen.writers.duplicate_of(Producer("p0", 0, 1)) == 1
    assert pen.writers.duplicate_of(Producer("p1", 0, 0)) is None
    assert not pen.restarted().send("p0", 0, 1)
