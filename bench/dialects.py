"""`make bench-dialects`: what a token costs between each two dialects, against OpenAI chat on both sides.

In one process, without sockets (`bench.token_path`): every pair has open streams of its own, and the pairs
take turns, round by round, so that what the machine does to one it does to all. A round's time is the CPU of
the thread; of each pair the least counts, which holds still on a machine that does not. The ratios are higher
than those of `bench/run.py`, since nothing here is spent on sockets, where all dialects cost the same.

    python -m bench.dialects [--rounds 30] [--to messages ui] [--from chat] [--profile messages:chat]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import gc
import pstats
import sys
from collections.abc import Mapping
from time import thread_time_ns
from typing import Final

import structlog
import uvloop

from bench.speech import SPEECHES
from bench.token_path import Journey
from penstock.server import formats
from penstock.server.renderings import Format
from penstock.streams.memory import MemoryStore
from penstock.wire.anthropic_messages import ANTHROPIC_MESSAGES
from penstock.wire.dialect import Dialect
from penstock.wire.gemini import GEMINI
from penstock.wire.ollama_clients import OLLAMA
from penstock.wire.openai_chat import OPENAI_CHAT
from penstock.wire.openai_responses import OPENAI_RESPONSES

BAR: Final = 1.3
"""Times what chat to chat costs, that any pair with chat on one side may."""

PROVIDERS: Final[Mapping[str, Dialect]] = {
    "chat": OPENAI_CHAT,
    "messages": ANTHROPIC_MESSAGES,
    "responses": OPENAI_RESPONSES,
    "gemini": GEMINI,
    "ollama": OLLAMA,
}
CLIENTS: Final[Mapping[str, Format]] = {
    "chat": formats.openai_chat(include_usage=True, with_ids=False),
    "messages": formats.anthropic_messages(with_ids=False),
    "responses": formats.openai_responses(with_ids=False),
    "gemini": formats.gemini(),
    "ollama": formats.ollama(),
    "ui": formats.ai_sdk(None),
    "completions": formats.openai_completions(include_usage=True, with_ids=False),
    "native": formats.NATIVE,
}

Pair = tuple[str, str]


def journey(pair: Pair) -> Journey:
    """Return the streams of a provider's dialect that are read in a client's."""
    upstream, client = pair
    speech = SPEECHES[upstream]("000000000000000000000001", 1790000000, 1000)
    return Journey(MemoryStore(), PROVIDERS[upstream], speech, CLIENTS[client])


async def measure(pairs: list[Pair], rounds: int, profiled: Pair | None) -> dict[Pair, float]:
    """Return the least CPU of a token of each pair, in nanoseconds."""
    best = dict.fromkeys(pairs, float("inf"))
    profiler = cProfile.Profile()
    async with contextlib.AsyncExitStack() as stack:
        journeys = {pair: journey(pair) for pair in pairs}
        for each in journeys.values():
            await stack.enter_async_context(each.begun())
        gc.disable()
        for _ in range(rounds):
            for pair, each in journeys.items():
                if pair == profiled:
                    profiler.enable()
                best[pair] = min(best[pair], await each.round(thread_time_ns))
                if pair == profiled:
                    profiler.disable()
            gc.collect()
            await asyncio.sleep(0)
    if profiled is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(20)
    return best


def table(best: Mapping[Pair, float]) -> str:
    """Return the figures: providers down, clients across; times what chat to chat costs."""
    reference = best["chat", "chat"]
    rows = [name for name in PROVIDERS if any(pair[0] == name for pair in best)]
    columns = [name for name in CLIENTS if any(pair[1] == name for pair in best)]
    lines = [f"{'from, to':10}" + "".join(f"{name:>12}" for name in columns)]
    for row in rows:
        cells = [best.get((row, column)) for column in columns]
        lines.append(
            f"{row:10}" + "".join(f"{cell / reference:12.2f}" if cell else f"{'':12}" for cell in cells)
        )
    return "\n".join((*lines, f"chat to chat: {reference / 1000:.2f} µs of CPU a token"))


def over(best: Mapping[Pair, float]) -> list[str]:
    """Return what misses the bar: pairs of chat and another dialect."""
    reference = best["chat", "chat"]
    return [
        f"{upstream} to {client}: {figure / reference:.2f} times, where {BAR} is the bar"
        for (upstream, client), figure in best.items()
        if "chat" in (upstream, client) and figure > BAR * reference
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--from", dest="upstreams", nargs="+", choices=PROVIDERS, default=list(PROVIDERS))
    parser.add_argument("--to", dest="clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--profile", metavar="FROM:TO", help="where the time of a pair goes, by function")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    pairs = [(upstream, client) for upstream in options.upstreams for client in options.clients]
    pairs = [("chat", "chat"), *(pair for pair in pairs if pair != ("chat", "chat"))]
    profiled = None
    if options.profile:
        upstream, _, client = options.profile.partition(":")
        profiled = (upstream, client)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        best = runner.run(measure(pairs, options.rounds, profiled))
    print(table(best))
    missed = over(best) if profiled is None else []
    print("\n".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
