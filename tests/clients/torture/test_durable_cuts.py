"""The Durable Streams protocol's own client, cut at any byte of a publication that it follows, loses nothing.

It follows live, so that each piece comes with its `control`, or in an answer of its own. An event stream ends
properly at its cut, as if it were whole. By its nature the client then shows again what was cut off from its
`control`; that batch says by its offset that it is no further than the one before.
"""

import base64
import json
import random

import pytest

from tests.clients import node
from tests.clients.torture.cuts import ALL, sampled
from tests.clients.torture.table import Row

SAMPLE = 24
JSON = [
    json.dumps({"n": n, "text": "é" * (n % 4)}, separators=(",", ":"), ensure_ascii=False) for n in range(8)
]
BYTES = [random.Random(7).randbytes(3 + 5 * n) for n in range(8)]


def joined(pieces, kind):
    """What a reader has: messages, or bytes that come in other pieces than they were written in."""
    return pieces if kind == "json" else b"".join(base64.b64decode(piece) for piece in pieces)


def follow(gateway, folder, live, kind, pieces, offsets):
    node.modules()
    file = folder / "cuts.json"
    encoded = [base64.b64encode(piece).decode() for piece in pieces]
    work = {"gateway": gateway.url, "live": live, "kind": kind, "pieces": encoded, "offsets": offsets}
    file.write_text(json.dumps(work))
    return json.loads(node.run("durable.cuts.mjs", str(file), patience=1_800 if ALL else 100))


@pytest.mark.timeout(3_600 if ALL else 120)
@pytest.mark.parametrize("kind", ["json", "bytes"])
@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_no_cut_costs_its_client_a_piece(torn, rows, tmp_path, live, kind):
    pieces, expected = (
        ([piece.encode() for piece in JSON], JSON) if kind == "json" else (BYTES, b"".join(BYTES))
    )
    (whole,) = follow(torn, tmp_path, live, kind, pieces, [None])
    size = whole["size"]
    places = [offset for offset, _ in sampled(size, SAMPLE, f"{live} {kind}")]
    results = follow(torn, tmp_path, live, kind, pieces, places)

    transport = {"sse": "SSE", "long-poll": "long poll"}[live]
    row = Row("@durable-streams/client (Node.js)", transport, f"GET /v1/stream/{{path}}, {kind}")
    wrong = []
    for offset, result in zip(places, results, strict=True):
        row.readers += 1
        row.cuts += result["cut"]
        row.repeated += len(result["shown"]) - len(result["kept"])
        if joined(result["kept"], kind) != expected:
            row.lost += 1
            wrong.append((offset, result))
    row.every = size if ALL else 0
    rows.append(row)
    assert not wrong, f"{len(wrong)} of {row.readers}: {wrong[:3]}"
    assert row.cuts > 0.9 * row.readers
    assert live == "sse" or row.repeated == 0
