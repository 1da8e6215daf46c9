"""Spoiled input: what a fuzzer makes of good examples. Everything comes from the generator that is passed."""

import json
import random
from collections.abc import Sequence
from typing import Any, Final

MAX_BYTES: Final = 64 << 10
"""Of one input: what is longer finds no more, and takes longer."""

STRANGE_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    1e308,
    -0.0,
    2**31,
    2**53 + 1,
    2**63,
    10**30,
    "",
    "x",
    "\0",
    "\r\n",
    "\u2028",
    "\ufeff",
    "\U0001f468\u200d\U0001f469",
    "a" * 5_000,
    "data:;base64,",
    "https://[::1",
    "{}",
    '{"a":',
    [],
    {},
    [[]],
    [None],
    ["x"],
    [{}],
    {"": ""},
    {"type": []},
    {"x": 1},
    [{"x": {}}],
)

STRANGE_BYTES: Final = (
    b"\0",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\xff",
    b"\xc0\xaf",
    b"\xed\xa0\xbd",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\\ud83d",
    b"1e999",
    b"-",
    b'"',
    b"{",
    b"[",
    b"[" * 2_000,
    b'{"a":' * 500,
    b"9" * 400,
    b"data: ",
    b"event: ",
    b"data: [DONE]\n\n",
    b": \n",
    b"%00",
    b"~",
    b"=",
    b".",
    b"*",
    b"&a",
    b"${X}",
    b"${file:/etc/hostname}",
    b"(?:",
    b"{0,9999}",
    b"\\1",
)


def spoil(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return ``data`` with a few things wrong; ``others`` are examples to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = spoil_json(data, rng) if rng.random() < 0.6 else spoil_bytes(data, others, rng)
    return data[:MAX_BYTES]


def spoil_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Put in, leave out, repeat or exchange a stretch of bytes, anywhere."""
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((0, 1, 2, 8, 64, 1_024)))
    match rng.randrange(6):
        case 0:
            middle = rng.choice(STRANGE_BYTES)
        case 1:
            middle = b""
        case 2:
            middle = data[start:end] * rng.choice((2, 3, 50))
        case 3:
            middle = bytes(rng.randrange(256) for _ in range(end - start or 1))
        case 4:
            other = rng.choice(others)
            cut = rng.randint(0, len(other))
            middle = other[cut : cut + rng.choice((1, 8, 64, 4_096))]
        case _:
            if start < len(data):
                middle = bytes((data[start] ^ (1 << rng.randrange(8)),)) + data[start + 1 : end]
            else:
                middle = b""
    return data[:start] + middle + data[end:]


def spoil_json(data: bytes, rng: random.Random) -> bytes:
    """Distort one value of a JSON text, or of one line of several; what holds none is cut short."""
    head, newline, tail = b"", b"", data
    if b"\n" in data:
        lines = data.split(b"\n")
        having = [number for number, line in enumerate(lines) if b"{" in line or b"[" in line]
        if having:
            at = rng.choice(having)
            head, newline = b"\n".join(lines[:at]) + b"\n" * (at > 0), b"\n"
            tail = lines[at]
            rest = b"\n".join(lines[at + 1 :])
            return head + _spoil_line(tail, rng) + (newline + rest if at + 1 < len(lines) else b"")
    return _spoil_line(data, rng)


def _spoil_line(line: bytes, rng: random.Random) -> bytes:
    start = min((place for place in (line.find(b"{"), line.find(b"[")) if place >= 0), default=-1)
    if start >= 0:
        try:
            value = json.loads(line[start:])
            told = json.dumps(distort(value, rng), ensure_ascii=rng.random() < 0.5)
        except (ValueError, RecursionError):
            pass
        else:
            return line[:start] + told.encode("utf-8", "surrogatepass")
    return line[: rng.randint(0, len(line))]


def distort(value: Any, rng: random.Random) -> Any:
    """Return JSON ``value`` with one thing in it, anywhere, exchanged, repeated, renamed or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        rest = {key: inner for key, inner in value.items() if key != name}
        chance = rng.random()
        if chance < 0.1:
            return rest
        if chance < 0.15:
            return {**rest, rng.choice(("", "x", "\0", name * 2, name.upper())): value[name]}
        if chance < 0.2 and rest:
            return {**value, name: rest[rng.choice(list(rest))]}
        return {**rest, name: distort(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        chance = rng.random()
        if chance < 0.1:
            return value[:at] + value[at + 1 :]
        if chance < 0.2:
            return value[:at] + [value[at]] * rng.choice((2, 40)) + value[at:]
        if chance < 0.25:
            return rng.sample(value, len(value))
        return [*value[:at], distort(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randint(0, len(value))
        return value[:at] + str(rng.choice(STRANGE_VALUES)) + value[at:]
    return rng.choice(STRANGE_VALUES)
