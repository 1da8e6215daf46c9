import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import CLIENTS, Plan, ReplyError, ReplyParser
from bench.paced_upstream import HEAD, content_frame, framed
from bench.speech import chat

SAID = chat("chatcmpl-1", 1_760_000_000, 9)
STREAM_HEAD = (HEAD % SAID.media_type).encode()

TIMES = [123456789012345, 123456809012345, 123456829012345]


def reply(times: list[int]) -> bytes:
    before, after = content_frame(SAID.token)
    tokens = b"".join(before + b"%016d" % time + after for time in times)
    return STREAM_HEAD + tokens + framed("data: [DONE]\n\n") + b"0\r\n\r\n"


def rechunked(body: bytes, sizes: list[int]) -> bytes:
    pieces, position = [], 0
    while position < len(body):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(body[position : position + size])
        position += size
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def feed_in_pieces(data: bytes, size: int, client: str = "chat") -> tuple[ReplyParser, list[int]]:
    parser, times = ReplyParser(CLIENTS[client]), []
    for position in range(0, len(data), size):
        times += parser.feed(data[position : position + size])
    return parser, times


@given(st.integers(min_value=1, max_value=1500))
def test_the_parser_finds_every_token_however_the_bytes_arrive(size: int):
    parser, times = feed_in_pieces(reply(TIMES), size)
    assert times == TIMES
    assert parser.done
    assert parser.ended


@given(st.lists(st.integers(min_value=1, max_value=400), min_size=1), st.integers(min_value=1, max_value=900))
def test_the_parser_joins_events_that_a_proxy_cut_into_other_chunks(sizes: list[int], step: int):
    whole = b"".join(
        b'event: delta\ndata: {"n":%d,"type":"text","delta":"t=%016d "}\nid: s_00X~%016d\n\n' % (n, time, n)
        for n, time in enumerate(TIMES)
    )
    whole += b'event: done\ndata: {"status":"completed"}\n\n'
    parser, times = feed_in_pieces(STREAM_HEAD + rechunked(whole, sizes), step, "native")
    assert times == TIMES
    assert parser.done
    assert parser.ended


def test_a_stream_cut_off_is_neither_done_nor_ended():
    parser = ReplyParser()
    parser.feed(reply(TIMES)[:-25])
    assert not parser.done
    assert not parser.ended


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        STREAM_HEAD + b"zz\r\n",
        STREAM_HEAD + b"2\r\nabXX",
        STREAM_HEAD + framed("data: half an event") + b"0\r\n\r\n",
    ],
    ids=["refused", "not a stream", "no size", "no end of chunk", "ends within an event"],
)
def test_the_parser_refuses_what_is_no_whole_stream(data: bytes):
    with pytest.raises(ReplyError):
        ReplyParser().feed(data)


def test_every_stream_outlives_the_window():
    plan = Plan.of(streams=10, rate=50, ramp_s=2, warmup_s=1, seconds=8)
    first_ends = plan.start_ns + plan.tokens * plan.interval_ns
    assert plan.window_start_ns >= plan.start_ns + plan.ramp_ns
    assert first_ends > plan.window_end_ns
    assert plan.limit_ns > plan.start_ns + plan.ramp_ns + plan.tokens * plan.interval_ns
