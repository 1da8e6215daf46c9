"""The journal's file: what is written is read back, and what was not is told apart from damage."""

import os
import resource
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.streams import journal
from penstock.streams.journal import Damage, Frame, JournalWriter, Torn

BODIES = [
    journal.encode_prefix(journal.RECORDS, f"s_{n}") + struct.pack("<Q", n + 1) + os.urandom(3 * n)
    for n in range(8)
]


def write(folder: Path, *batches: Sequence[bytes], rotate_bytes: int = 1 << 20) -> JournalWriter:
    writer = JournalWriter(folder, number=0, rotate_bytes=rotate_bytes)
    for batch in batches:
        writer.append(batch)
    return writer


def load(folder: Path, number: int = 1) -> tuple[bytes, journal.Header]:
    data = journal.journal_path(folder, number).read_bytes()
    header = journal.read_header(data)
    assert header is not None
    return data, header


def bodies(found: Sequence[Frame | Damage | Torn]) -> list[bytes]:
    frames = [frame for frame in found if isinstance(frame, Frame)]
    return [journal.encode_prefix(frame.type, frame.stream) + frame.payload for frame in frames]


@contextmanager
def no_room() -> Iterator[None]:
    """Every write beyond a file's first 200 bytes fails, as with a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


records = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=60)


@given(records, st.integers(1, 2**60))
def test_records_come_back_as_they_were(some, first):
    encoded = b"head" + journal.encode_records(bytes(kind for kind, _ in some), [data for _, data in some])
    found = list(journal.decode_records(encoded, first, 4))
    assert found == [(first + index, kind, data) for index, (kind, data) in enumerate(some)]


@given(records.filter(bool), st.data())
def test_records_that_are_cut_or_padded_are_refused(some, data):
    encoded = journal.encode_records(bytes(kind for kind, _ in some), [one for _, one in some])
    for wrong in (encoded[: data.draw(st.integers(0, len(encoded) - 1))], encoded + b"x"):
        with pytest.raises(ValueError):
            list(journal.decode_records(wrong, 1))


def test_one_record_is_encoded_as_many_are():
    prefix = journal.encode_prefix(journal.RECORDS, "s")
    assert journal.encode_body(prefix, 7, bytearray(b"\1"), [b"abc"]) == (
        prefix + journal.FIRST.pack(7) + journal.encode_records(b"\1", [b"abc"])
    )


def test_frames_come_back_in_order(tmp_path):
    writer = write(tmp_path, BODIES[:3], BODIES[3:])
    data, header = load(tmp_path)
    assert (header.version, header.number, header.previous_end) == (journal.VERSION, 1, 0)
    assert bodies(list(journal.frames(data, header.salt))) == BODIES
    assert writer.size == len(data) == sum(writer.sizes.values())
    assert journal.journal_path(tmp_path, 1).stat().st_mode & 0o777 == 0o600
    writer.retire()


def test_a_file_that_ends_anywhere_gives_the_frames_before_and_tells_the_rest(tmp_path):
    write(tmp_path, BODIES).retire()
    data, header = load(tmp_path)
    ends = [frame.offset for frame in journal.frames(data, header.salt)] + [len(data)]
    for length in range(journal.HEADER_SIZE, len(data)):
        found = list(journal.frames(data[:length], header.salt))
        whole = sum(end <= length for end in ends) - 1
        assert bodies(found) == BODIES[:whole]
        torn = [one for one in found if not isinstance(one, Frame)]
        assert torn == ([] if length == ends[whole] else [Torn(ends[whole], length - ends[whole])])


def test_zeroes_at_the_end_are_torn_and_not_damage(tmp_path):
    write(tmp_path, BODIES).retire()
    data, header = load(tmp_path)
    for count in (1, 15, 16, 5000):
        *_, last = journal.frames(data + bytes(count), header.salt)
        assert last == Torn(len(data), count)


@given(st.data())
def test_no_flipped_bit_makes_a_wrong_frame_or_goes_unseen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("journal")
    write(folder, BODIES).retire()
    content, header = load(folder)
    at = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[at // 8] ^= 1 << at % 8
    if at // 8 < journal.HEADER_SIZE:
        assert journal.read_header(bytes(flipped)) is None
        return
    found = list(journal.frames(bytes(flipped), header.salt))
    (damage,) = [one for one in found if not isinstance(one, Frame)]
    assert isinstance(damage, Damage)
    (lost,) = [n for n in range(len(BODIES)) if bodies(found) == BODIES[:n] + BODIES[n + 1 :]]
    assert (
        damage.offset
        == sum(journal.FRAME_HEAD_SIZE + len(body) for body in BODIES[:lost]) + journal.HEADER_SIZE
    )


@given(st.binary(max_size=400))
def test_noise_is_never_a_frame(noise):
    assert not bodies(list(journal.frames(bytes(journal.HEADER_SIZE) + noise, 0x1234567)))
    assert journal.read_header(noise) is None


def test_stored_data_that_looks_like_a_frame_is_not_taken_for_one(tmp_path):
    """Behind damage the next frame is searched for: what a client sent must not be found there."""
    write(tmp_path, BODIES[:1]).retire()
    forged, _ = load(tmp_path)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", [BODIES[0] + forged[journal.HEADER_SIZE :]], BODIES[1:]).retire()
    data, header = load(tmp_path / "other")
    damaged = bytearray(data)
    damaged[journal.HEADER_SIZE + 20] ^= 1
    found = list(journal.frames(bytes(damaged), header.salt))
    assert bodies(found) == BODIES[1:]
    assert isinstance(found[0], Damage)


def test_a_file_shorter_than_its_successor_says_is_damaged(tmp_path):
    write(tmp_path, BODIES).retire()
    data, header = load(tmp_path)
    *frames, damage = journal.frames(data[:-5], header.salt, end=len(data))
    assert bodies(frames) == BODIES[:-1]
    assert isinstance(damage, Damage)
    assert list(journal.frames(data + b"left behind", header.salt, end=len(data))) == list(
        journal.frames(data, header.salt)
    )


def test_a_file_is_left_when_it_is_long_enough(tmp_path):
    writer = write(tmp_path, *([body] for body in BODIES), rotate_bytes=100)
    assert list(journal.journal_files(tmp_path)) == list(range(1, writer.number + 1))
    assert writer.number > 2
    found = []
    for number in range(1, writer.number + 1):
        data, header = load(tmp_path, number)
        assert header.previous_end == (writer.sizes[number - 1] if number > 1 else 0)
        found += bodies(list(journal.frames(data, header.salt)))
    assert found == BODIES
    writer.retire()


def test_a_batch_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    writer = write(tmp_path, BODIES[:2])
    before, _ = load(tmp_path)
    with no_room():
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                writer.append([BODIES[2], bytes(1000)])
            assert load(tmp_path)[0] == before
    writer.append(BODIES[2:])
    writer.retire()
    data, header = load(tmp_path)
    assert bodies(list(journal.frames(data, header.salt))) == BODIES


def test_after_a_failed_sync_the_batch_goes_into_a_new_file(tmp_path):
    writer = write(tmp_path, BODIES[:2])
    size = writer.append(BODIES[2:4])
    writer.undo(size)
    writer.append(BODIES[2:4])
    writer.sync()
    writer.retire()
    assert writer.number == 2
    (first, head), (second, next_head) = load(tmp_path, 1), load(tmp_path, 2)
    assert bodies(list(journal.frames(first, head.salt, end=next_head.previous_end))) == BODIES[:2]
    assert bodies(list(journal.frames(second, next_head.salt))) == BODIES[2:4]


def test_a_file_that_could_not_be_begun_is_begun_again(tmp_path):
    writer = JournalWriter(tmp_path, number=0, rotate_bytes=1 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match=r"File too large|No space left"):
            writer.append(BODIES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not writer.is_open
    writer.append(BODIES)
    writer.retire()
    data, header = load(tmp_path)
    assert bodies(list(journal.frames(data, header.salt))) == BODIES
