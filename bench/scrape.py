"""What metrics cost besides tokens: the signals of a call, and a scrape with as many series as a house has.

    python -m bench.scrape [--models 30] [--targets 3] [--interval 15]

A house with 30 models at 3 targets each, all of whose histograms and error codes were seen. The figure for a
scrape is CPU of the process, and how long it kept the loop at a time: tokens wait for that.
"""

from __future__ import annotations

import argparse
import asyncio
from time import perf_counter, process_time

import uvloop

from penstock.telemetry.exposition import Exposition
from penstock.telemetry.metrics import Metrics
from penstock.types.events import Timing, UsageReported
from penstock.types.outcomes import AttemptUse, Outcome
from penstock.types.signals import (
    AttemptBegan,
    AttemptEnded,
    CallAccepted,
    FirstOutput,
    ReaderJoined,
    ReaderLeft,
    StreamEnded,
    Subject,
)

CODES = ("", "upstream_reset", "upstream_stalled", "rate_limit_exceeded", "cancelled")
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def call(metrics: Metrics, number: int, model: str, target: str, code: str) -> None:
    """Signal all that a call signals."""
    about = Subject(str(number), "app", "openai_chat", model)
    timing = Timing(first_output_ms=300.0 + number % 5_000, total_ms=2_000, wait_ms=200 + number % 4_000)
    use = AttemptUse(target, "p", model, UsageReported(100, 200, cached_tokens=10), code)
    metrics(CallAccepted(about, queued_ms=0.1))
    metrics(AttemptBegan(about, 1, "first", target, "p", model))
    metrics(ReaderJoined(about.stream, number, "app"))
    metrics(FirstOutput(about, 1, target, timing))
    metrics(AttemptEnded(about, 1, "first", target, "p", model, code))
    status = "failed" if code else "completed"
    metrics(StreamEnded(about, Outcome(status, about.stream, code, (use,)), target, None, timing, None, (5,)))  # type: ignore[arg-type]
    metrics(ReaderLeft(about.stream, number, "app"))


async def longest_hold(exposition: Exposition) -> tuple[float, float, int]:
    """Scrape once; return its CPU seconds, the longest time it kept the loop, and its bytes."""
    longest, last, over = 0.0, perf_counter(), False

    async def watch() -> None:
        nonlocal longest, last
        while not over:
            await asyncio.sleep(0)
            now = perf_counter()
            longest, last = max(longest, now - last), now

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await asyncio.sleep(0.01)
        longest = 0.0
        body, _ = await exposition.render(OPEN_METRICS)
        over = True
    began = process_time()
    await exposition.render(OPEN_METRICS)
    return process_time() - began, longest, len(body)


async def measure(models: int, targets: int, interval: float) -> None:
    metrics = Metrics(lambda name: name)
    for model in range(models):
        for target in range(targets):
            for code in CODES:
                call(metrics, model, f"model-{model}", f"provider-{target}/model-{model}", code)
    rounds = 20_000
    began = process_time()
    for number in range(rounds):
        call(metrics, number, f"model-{number % models}", f"provider-0/model-{number % models}", "")
    spent = (process_time() - began) / rounds
    print(f"the signals of a call: {spent * 1e6:.1f} µs, with making them")
    exposition = Exposition(metrics.families)
    figures = [await longest_hold(exposition) for _ in range(20)]
    cpu, held, size = (min(column) for column in zip(*figures, strict=True))
    print(f"a scrape: {cpu * 1e3:.1f} ms of CPU, {held * 1e3:.1f} ms at a time, {size / 1e3:.0f} kB")
    print(f"every {interval:g} s: {100 * cpu / interval:.3f} % of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--interval", type=float, default=15.0)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(options.models, options.targets, options.interval))


if __name__ == "__main__":
    main()
