"""What one token costs between the two sockets: everything but the kernel and the event loop.

A provider's bytes are handed to the source as the HTTP client would, pass decoder, gate, log and store,
and reach a reader that is caught up, whose connection only counts. The figure is the least of many
rounds, so it holds still on a machine that does not: it is for comparing commits, not for promises.

    python -m bench.token_path [--store memory|embedded] [--rounds 60] [--policies | --metrics] [--profile]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import pstats
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from time import perf_counter_ns, time
from typing import Any, cast

import structlog
import uvloop

from bench.speech import Speech, chat
from penstock.gateway.gateway import Gateway
from penstock.gateway.router import Routing
from penstock.policies.access import Access
from penstock.policies.accounting import Accounting
from penstock.policies.budget import Budget, Budgets
from penstock.policies.chain import Chain
from penstock.policies.limits import Limit, Limits
from penstock.policies.prices import Price, Prices
from penstock.providers.http import HttpSource
from penstock.providers.provider import Conversation, Model, Target
from penstock.server.downstream import Downstream
from penstock.server.formats import NATIVE, openai_chat
from penstock.server.renderings import Format, Renderings
from penstock.server.responses import Reader
from penstock.streams.embedded import EmbeddedStore
from penstock.streams.memory import MemoryStore
from penstock.streams.store import Store
from penstock.telemetry.metrics import Metrics
from penstock.telemetry.observers import Observers
from penstock.types.buckets import COMMIT_BOUNDS, Buckets
from penstock.types.calls import Call
from penstock.types.principals import Grant, Principal
from penstock.types.requests import GenerationRequest, Message
from penstock.types.usage import UsageRow
from penstock.upstream.http1 import Request, ResponseSink
from penstock.wire.dialect import Dialect
from penstock.wire.openai_chat import OPENAI_CHAT

STREAMS = 100
TOKENS_A_ROUND = 20  # of each stream


class Tap:
    """Stands where the HTTP client's pool does: keeps the sink, to be fed by hand."""

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type
        self.sinks: list[ResponseSink] = []

    async def open(
        self,
        request: Request,
        sink: ResponseSink,
        *,
        head_timeout: float | None = None,
        connect_timeout: float | None = None,
    ) -> Any:
        self.sinks.append(sink)
        sink.on_head(200, {"content-type": self.media_type})
        return self

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class Provider:
    """A provider on a `Tap` that speaks ``dialect``."""

    name = "bench"

    def __init__(self, tap: Tap, dialect: Dialect) -> None:
        self._tap = tap
        self._dialect = dialect

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        from_url = Request("POST", cast("Any", ("http", "127.0.0.1", 1)), "/", ())
        source = HttpSource(cast("Any", self._tap), from_url, self._dialect.parse_error)
        return Conversation(source, self._dialect.decoder())

    async def models(self) -> list[Model]:
        return []

    async def aclose(self) -> None: ...


class Sinkhole:
    """A client that takes everything at once."""

    pushes = True
    gone = False

    def __init__(self) -> None:
        self.bytes = 0

    async def start(self, status: int, headers: Any) -> None: ...

    def push(self, data: bytes) -> bool:
        self.bytes += len(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    async def write(self, data: bytes) -> None:
        self.push(data)

    async def end(self) -> None: ...

    def cut(self) -> None: ...

    def on_gone(self, callback: Callable[[], None] | None) -> None: ...

    def on_doubt(self, callback: Callable[[], None] | None) -> None: ...


class Nowhere:
    """Takes the rows of the ledger."""

    def record_nowait(self, rows: Sequence[UsageRow]) -> None: ...


def every_policy() -> Chain:
    """Return keys' grants, limits and budgets, all of which mean every call."""
    loop = asyncio.get_running_loop()
    limits = Limits(
        [Limit("all", concurrent=10_000, tokens_per_day=10**12), Limit("key", concurrent=10_000)], loop.time
    )
    budgets = Budgets([Budget("all", 10**15), Budget("key", 10**15, "day"), Budget("team", 10**15)], time)
    prices = Prices({"*": Price(1, 2)}, {})
    return Chain([Access(time), limits, Accounting(prices, budgets, Nowhere(), lambda _: ("bench", "bench"))])


WHO = Principal("bench", key="k", team="t", grant=Grant(models=("bench*",)), address="127.0.0.1")


class Journey:
    """Streams of one provider that are read in one format, all of them open and caught up."""

    def __init__(self, store: Store, dialect: Dialect, speech: Speech, format: Format) -> None:
        self._store = store
        self._format = format
        self._speech = speech
        self._token = speech.token.encode()
        self._tap = Tap(speech.media_type)
        self._provider = Provider(self._tap, dialect)
        self._readers: list[asyncio.Future[Any]] = []

    @contextlib.asynccontextmanager
    async def begun(self, *, policies: bool = False, metrics: bool = False) -> AsyncIterator[None]:
        """Open the streams; end them, and wait until every reader was told, on the way out."""
        routing = Routing({"bench": (Target("bench/bench", "bench", "bench"),)})
        renderings = Renderings()
        policy = every_policy() if policies else None
        observe = Observers([Metrics(routing.rule)]) if metrics else None
        providers = {"bench": self._provider}
        async with Gateway(self._store, providers, routing, policy=policy, observe=observe) as gateway:
            request = GenerationRequest("bench", (Message("user", "x"),), stream=True)
            for _ in range(STREAMS):
                started = await gateway.start(Call(WHO, "bench", request))
                down = cast("Downstream", Sinkhole())
                reader = Reader(started.stream, self._format, down, renderings, position=0)
                self._readers.append(asyncio.ensure_future(reader.run(b"")))
            sinks = self._tap.sinks
            while len(sinks) < STREAMS:  # noqa: ASYNC110  a few turns of the loop
                await asyncio.sleep(0)
            for sink in sinks:
                sink.on_body(self._speech.opening.encode())
                sink.on_body(self._token)
            for _ in range(10):
                await asyncio.sleep(0.001)
            yield
            for sink in sinks:
                sink.on_body(self._speech.ending.encode())
                sink.on_end()
            await asyncio.gather(*self._readers)

    async def round(self, clock: Callable[[], int] = perf_counter_ns) -> float:
        """Return the time of a token by ``clock``, in nanoseconds."""
        sinks, token = self._tap.sinks, self._token
        spent = 0
        for _ in range(TOKENS_A_ROUND):
            began = clock()
            for sink in sinks:
                sink.on_body(token)
            await asyncio.sleep(0)  # the commit
            spent += clock() - began
        return spent / (STREAMS * TOKENS_A_ROUND)


async def measure(
    store: Store, format: Format, rounds: int, *, policies: bool, metrics: bool, profile: bool
) -> float:
    """Return the least time of a token over all rounds, in nanoseconds."""
    journey = Journey(store, OPENAI_CHAT, chat("chatcmpl-000000000000000000000001", 1790000000, 1), format)
    best = float("inf")
    async with journey.begun(policies=policies, metrics=metrics):
        profiler = cProfile.Profile() if profile else None
        for number in range(rounds):
            if profiler is not None and number > rounds // 2:
                profiler.enable()
            best = min(best, await journey.round())
            if profiler is not None:
                profiler.disable()
            await asyncio.sleep(0.002)  # let the store's thread breathe, unmeasured
        if profiler is not None:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--store", choices=("memory", "embedded"), default="embedded")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--policies", action="store_true", help="with all of them, and without, in turns")
    parser.add_argument("--metrics", action="store_true", help="with what is measured, and without, in turns")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by function")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    formats = {"openai_chat": openai_chat(include_usage=False, with_ids=False), "native": NATIVE}
    for name, format in formats.items():
        figures = []
        compared = "policies" if options.policies else "metrics" if options.metrics else ""
        for more in (False, True, False, True) if compared else (False,):
            commits = Buckets(COMMIT_BOUNDS) if more and options.metrics else None
            with tempfile.TemporaryDirectory() as folder:
                store: Store = MemoryStore()
                if options.store == "embedded":
                    store = EmbeddedStore(Path(folder), commits=commits)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    work = measure(
                        store,
                        format,
                        options.rounds,
                        policies=more and options.policies,
                        metrics=more and options.metrics,
                        profile=options.profile,
                    )
                    best = runner.run(work)
            figures.append(best)
            said = f", with all {compared}" if more else ""
            print(f"{options.store:9} {name:12} {best / 1000:6.2f} µs a token{said}")
        if compared:
            without, with_all = min(figures[::2]), min(figures[1::2])
            print(f"{options.store:9} {name:12} {compared}: {with_all / without:5.3f} times")


if __name__ == "__main__":
    main()
