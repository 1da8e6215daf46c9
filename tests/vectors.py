"""Wire vectors: files under ``vectors/`` that show bytes and their meaning, and ways to cut the bytes.

Owns finding and reading the files, one JSON object each, and the cuttings that every decoder is run
over. What the members of a vector mean is its folder's business (see the README there).
"""

import base64
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

VECTORS = Path(__file__).resolve().parent.parent / "vectors"

T = TypeVar("T")


class Vector(NamedTuple):
    """One case: its file's name without the suffix, and the JSON object in it."""

    name: str
    content: dict[str, Any]


def load(folder: str) -> list[Vector]:
    """Return the vectors of ``vectors/<folder>``, by name. Fails when there are none."""
    paths = sorted((VECTORS / folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no vectors in {VECTORS / folder}")
    return [Vector(path.stem, json.loads(path.read_text("utf-8"))) for path in paths]


def each_vector(folder: str) -> pytest.MarkDecorator:
    """Run a test once for each vector of ``folder``, which it takes as ``vector``."""
    return pytest.mark.parametrize("vector", load(folder), ids=lambda vector: vector.name)


def octets(content: dict[str, Any], member: str) -> bytes:
    """Return ``content[member]``, a text, in UTF-8; or ``content[member + "_base64"]`` as bytes."""
    if (encoded := content.get(f"{member}_base64")) is not None:
        return base64.b64decode(encoded, validate=True)
    text: str = content[member]
    return text.encode()


def bytewise(data: bytes) -> list[bytes]:
    """Cut ``data`` into single bytes."""
    return [data[i : i + 1] for i in range(len(data))]


def cut_at(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """Cut ``data`` at ``positions``; a position that occurs twice makes an empty piece."""
    edges = [0, *sorted(positions), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def random_pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut ``data`` at up to a dozen random places."""
    return cut_at(data, [rng.randint(0, len(data)) for _ in range(rng.randint(1, 12))])


def cuttings(data: bytes, *, rounds: int = 20, seed: int = 0) -> Iterator[list[bytes]]:
    """Yield ``data`` whole, byte by byte, cut in two at every place, and ``rounds`` times at random.

    Long inputs (over 2 KiB) are cut in two at some 500 places only.
    """
    yield [data]
    yield bytewise(data)
    step = 1 + len(data) // 500 if len(data) > 2048 else 1
    for position in range(1, len(data), step):
        yield [data[:position], data[position:]]
    rng = random.Random(seed)
    for _ in range(rounds):
        yield random_pieces(data, rng)


def feed_all(feed: Callable[[bytes], Sequence[T]], pieces: Iterable[bytes]) -> list[T]:
    """Feed all ``pieces`` and return everything that came out, in order."""
    return [item for piece in pieces for item in feed(piece)]
