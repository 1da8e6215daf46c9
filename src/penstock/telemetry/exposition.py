"""Metrics as text for a scraper, in Prometheus' format or OpenMetrics, as it asks.

Printing thousands of series takes tens of milliseconds, which tokens would wait for: it is done family by
family, a part at a time, and the loop goes on in between. The process's figures come from files, in a thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from prometheus_client import PlatformCollector, ProcessCollector, exposition
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

Source: TypeAlias = Callable[[], Iterable[Metric]]

EOF: Final = b"# EOF\n"
"""What OpenMetrics ends with; once."""


PART: Final = 200
"""Samples that are printed at a time, in about 2 ms."""


class Exposition:
    """Prints all families of its sources."""

    def __init__(self, *sources: Source, slow: Sequence[Source] = ()) -> None:
        """``sources`` are asked for their families at each scrape, ``slow`` ones in a thread."""
        self._sources = sources
        self._slow = slow
        registry = CollectorRegistry()  # nobody's: ours alone asks the collectors
        self._process = ProcessCollector(registry=registry)
        self._platform = PlatformCollector(registry=registry)

    def __repr__(self) -> str:
        """Count the sources."""
        return f"<Exposition of {len(self._sources)} sources>"

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its content type, for a request's ``Accept``."""
        encode, content_type = exposition.choose_encoder(accept)
        pieces = []
        for family in self._families(await asyncio.to_thread(self._blocking)):
            for number, part in enumerate(_parts(family)):
                text = encode(_One(part)).removesuffix(EOF)
                pieces.append(text if number == 0 else _without_head(text))
                await asyncio.sleep(0)
        if "openmetrics" in content_type:
            pieces.append(EOF)
        return b"".join(pieces), content_type

    def _families(self, slow: list[Metric]) -> Iterator[Metric]:
        for source in self._sources:
            yield from source()
        yield from slow

    def _blocking(self) -> list[Metric]:
        found = [*self._process.collect(), *self._platform.collect()]
        for source in self._slow:
            found += source()
        return found


def _parts(family: Metric) -> Iterator[Metric]:
    """Yield ``family`` in parts that are quickly printed, at least one."""
    samples = family.samples
    for start in range(0, max(len(samples), 1), PART):
        part = Metric(family.name, family.documentation, family.type, family.unit)
        part.samples = samples[start : start + PART]
        yield part


def _without_head(text: bytes) -> bytes:
    """Return ``text`` less what says of the family what its first part has said: no sample begins so."""
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"# "))


class _One(Collector):
    """What an encoder takes: a collector, of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
