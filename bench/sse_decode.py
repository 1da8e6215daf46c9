"""What the SSE framing costs: frames a second on one core, by how the bytes arrive.

    python bench/sse_decode.py [--seconds 1] [--json FILE]

Each case is the same chat chunks, cut as a provider's socket or a proxy may cut them, fed to one
decoder over and over. The best of five rounds counts: what disturbs a round only makes it slower.
The `drip` cases are one line of 1 and of 4 MiB in reads of 16 bytes: their figures must be alike,
else time is not linear in the line's length. The frames that come out are counted.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from penstock.wire.sse import SseDecoder, encode

ROUNDS = 5
FRAMES = 512

CHUNK = (
    b'{"id":"chatcmpl-9xyz","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}'
)
PLAIN = encode(CHUNK)
NAMED = encode(CHUNK, event=b"content_block_delta")
CURSOR = b"s_0001JZ3N8QKX5W2V7T4R6Y9M0P1A2B~0001000000000042"
WITH_ID = encode(CHUNK, event=b"delta", id=CURSOR)


class Result(NamedTuple):
    """One case: ``frame_bytes`` a frame on the wire, on average, and how many frames a second."""

    case: str
    frame_bytes: int
    frames_per_second: float
    us_per_frame: float
    mb_per_second: float


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def crlf(frame: bytes) -> bytes:
    return frame.replace(b"\n", b"\r\n")


def cases() -> Iterator[tuple[str, list[bytes], int]]:
    """Yield each case's name, the reads of one pass, and the frames that they hold."""
    middle = len(PLAIN) // 2
    yield "one frame a call", [PLAIN] * FRAMES, FRAMES
    yield "one frame a call, event named", [NAMED] * FRAMES, FRAMES
    yield "one frame a call, event and id", [WITH_ID] * FRAMES, FRAMES
    yield "one frame a call, CR LF", [crlf(PLAIN)] * FRAMES, FRAMES
    yield "3 frames a call", [PLAIN * 3] * FRAMES, 3 * FRAMES
    yield "64 KiB a call", cut(PLAIN * 2 * FRAMES, 65_536), 2 * FRAMES
    yield "64 KiB a call, CR LF", cut(crlf(PLAIN) * 2 * FRAMES, 65_536), 2 * FRAMES
    yield "1460 bytes a call", cut(PLAIN * 2 * FRAMES, 1460), 2 * FRAMES
    yield "split in the middle", [PLAIN[:middle], PLAIN[middle:]] * FRAMES, FRAMES
    yield "split in the middle, CR LF", [crlf(PLAIN)[:middle], crlf(PLAIN)[middle:]] * FRAMES, FRAMES
    yield "split before the blank line", [PLAIN[:-1], PLAIN[-1:]] * FRAMES, FRAMES
    yield "one frame and a heartbeat", [PLAIN, b":\n"] * FRAMES, FRAMES
    for size in (1, 4):
        yield f"drip, {size} MiB in 16 bytes a call", cut(encode(b"x" * (size << 20)), 16), 1


def rate(once: Callable[[], int], seconds: float) -> float:
    """Return what ``once`` counts, a second: the best of some rounds that take ``seconds`` in all."""
    best = 0.0
    for _ in range(ROUNDS):
        count = 0
        start = time.perf_counter()
        while (passed := time.perf_counter() - start) < seconds / ROUNDS:
            count += once()
        best = max(best, count / passed)
    return best


def decode_rate(reads: list[bytes], frames: int, seconds: float) -> float:
    decoder = SseDecoder()
    decoder.feed(b"\n")  # past the start, as all but a body's first read are

    def once() -> int:
        feed = decoder.feed
        count = 0
        for data in reads:
            count += len(feed(data))
        if count != frames:
            raise RuntimeError(f"{count} frames came out instead of {frames}")
        return count

    return rate(once, seconds)


def encode_rate(seconds: float, event: bytes, id: bytes) -> float:
    def once() -> int:
        for _ in range(FRAMES):
            encode(CHUNK, event=event, id=id)
        return FRAMES

    return rate(once, seconds)


def measure(seconds: float) -> Iterator[Result]:
    for case, reads, frames in cases():
        size = sum(map(len, reads)) // frames
        yield result(case, size, decode_rate(reads, frames, seconds))
    yield result("encode", len(PLAIN), encode_rate(seconds, b"", b""))
    yield result("encode, event and id", len(WITH_ID), encode_rate(seconds, b"delta", CURSOR))


def result(case: str, size: int, frames_per_second: float) -> Result:
    return Result(case, size, frames_per_second, 1e6 / frames_per_second, size * frames_per_second / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    print(f"{'case':34}{'bytes':>9}{'frames/s':>12}{'µs/frame':>12}{'MB/s':>8}")
    results = []
    for row in measure(arguments.seconds):
        results.append(row._asdict())
        print(
            f"{row.case:34}{row.frame_bytes:>9,}{row.frames_per_second:>12,.0f}"
            f"{row.us_per_frame:>12,.2f}{row.mb_per_second:>8,.0f}"
        )
    if arguments.json:
        host = {"python": sys.version.split()[0], "machine": platform.machine()}
        arguments.json.write_text(json.dumps({**host, "results": results}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
