"""The answer that is cut to pieces: what a text can hold that a careless reader, or writer, breaks on.

Each piece is one delta of the provider, one entry of the log and one event, so lost and repeated events
can be counted. No two pieces are equal.
"""

import re
from collections import Counter
from collections.abc import Sequence

PIECES = [
    "Once", " upon", "  a time", "…\n", "\n\n", " 数据流的每一个字都很重要。", "🌊",
    "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈", " é", "e\u0301",
    "data: not a field\n", "id: 1~0000000000000009\n\n", "event: done\ndata: {}\n\n", ": no comment",
    "retry: 1", "\r\n", "one\rtwo\r\nthree\n\rfour", "\r", "\n", "line\u2028separator\u2029and\u0085next",
    "\ufeffBOM", "\t", " ", '"quoted" \\back\\slash </script>', "x", "0\r\n\r\n",
    "long: " + "流れる水は腐らず。" * 160, "[DONE]", "end ",
]  # fmt: skip
"""What the provider says."""


def shown(pieces: Sequence[str], format: str) -> list[str]:
    """Return what a reader of ``format`` gets of each piece: in text events every line end is LF."""
    if format == "json":
        return list(pieces)
    return [re.sub("\r\n?", "\n", piece) for piece in pieces]


def compare(expected: Sequence[str], got: Sequence[str]) -> tuple[int, int]:
    """Return how many events were lost and how many came too often."""
    wanted, came = Counter(expected), Counter(got)
    return (wanted - came).total(), (came - wanted).total()
