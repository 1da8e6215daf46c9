"""What one chunk of OpenAI chat costs: bytes to event (framing and decoding), and event to bytes.

    python -m bench.openai_decode [seconds per case]

One chunk a call, as providers send them. Prints µs per chunk, the best of several rounds, for the short
way (plain text by the book), for chunks with fields that the strict decoder does not know, and for
encoding. Goals: plain text at most 2.5 µs in, well under 1 µs out.
"""

import sys
import time
from collections.abc import Callable
from typing import Final

from penstock.types.events import AnyEvent, Started, TextDelta, encode_line
from penstock.wire.dialect import Answer
from penstock.wire.openai_chat import OPENAI_CHAT

ROUNDS: Final = 7

_ENVELOPE: Final = (
    b'data: {"id":"chatcmpl-9x","object":"chat.completion.chunk","created":1790000000,"model":"gpt-4o-mini",'
)
_OPENAI: Final = b'"service_tier":"default","system_fingerprint":"fp_44709d6fcb",'
ROLE: Final = (
    _ENVELOPE + _OPENAI + b'"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
    b'"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aB3"}\n\n'
)
CHUNKS: Final = {
    "plain text": _ENVELOPE + _OPENAI + b'"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null,"obfuscation":"aB3xYq"}\n\n',
    "CJK text": _ENVELOPE + '"choices":[{"index":0,"delta":{"content":"令牌"}}]}\n\n'.encode(),
    "reasoning": _ENVELOPE + b'"choices":[{"index":0,"delta":{"content":null,"reasoning_content":" so"},'
    b'"finish_reason":null}]}\n\n',
    "tool arguments": _ENVELOPE + b'"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":'
    b'{"arguments":"{\\"ci"}}]},"finish_reason":null}]}\n\n',
    "unknown fields": _ENVELOPE + b'"provider":"Together","choices":[{"index":0,"delta":{"role":"assistant",'
    b'"content":" token"},"native_finish_reason":null,"flag":0,"finish_reason":null}]}\n\n',
    "usage on each": _ENVELOPE + b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}],'
    b'"usage":{"prompt_tokens":12,"total_tokens":19,"completion_tokens":7}}\n\n',
}
EVENTS: Final[dict[str, AnyEvent]] = {
    "plain text": TextDelta(" token"),
    "CJK text": TextDelta("令牌"),
    "second choice": TextDelta(" token", 1),
}


def best(step: Callable[[], object], seconds: float) -> float:
    """Return the µs of one ``step`` in the fastest of `ROUNDS` rounds of about ``seconds`` in all."""
    count, took = 1000, 0.0
    while took < seconds / ROUNDS:
        count *= 2
        took = _time(step, count)
    return min(_time(step, count) for _ in range(ROUNDS)) / count * 1e6


def _time(step: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return time.perf_counter() - start


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    for name, chunk in CHUNKS.items():
        decoder = OPENAI_CHAT.decoder()
        decoder.feed(ROLE)
        print(f"decode {name:16} {best(lambda d=decoder, c=chunk: d.feed(c), seconds):6.2f} µs")  # type: ignore[misc]
    encoder = OPENAI_CHAT.encoder(Answer("s_0001ARZ3NDEKTSV4RRFFQ69G5FAV", 1790000000, "gpt-4o-mini"))
    encoder.encode(Started("gpt-4o-mini"), b"")
    encoder.encode(TextDelta("x", 1), b"")
    for name, event in EVENTS.items():
        line = encode_line(42, event)
        took = best(lambda e=event, x=line: encoder.encode(e, x), seconds)  # type: ignore[misc]
        print(f"encode {name:16} {took:6.2f} µs")


if __name__ == "__main__":
    main()
