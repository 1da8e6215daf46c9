"""Metrics as text for a scraper, in Prometheus' format or OpenMetrics, as it asks.

Printing thousands of series takes tens of milliseconds, which tokens would wait for: it is done family by
family, and the loop goes on in between. Figures of the process are read from files, in a thread.
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
            pieces.append(encode(_One(family)).removesuffix(EOF))
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


class _One(Collector):
    """What an encoder takes: a collector, of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family
