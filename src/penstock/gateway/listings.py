"""What providers say they offer: their lists of models, kept for a while and asked for anew.

Owns the cache and the questions under way. A provider is asked by one question at a time, within
`timeout`; whoever wants the answer waits for that same question, and who leaves does not stop it. The
tasks belong to the gateway's group, which ``spawn`` starts them in. A provider that cannot be reached
has no models; one that fails to list them otherwise keeps those it told last, once. No route enters.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from penstock.gateway.router import ModelList
from penstock.providers.provider import Provider
from penstock.types.errors import PenstockError

log = structlog.get_logger(__name__)

SOON: Final = 0.15
"""Seconds that an old list is held back for a new one; a server nearby answers in less."""

_UNREACHABLE: Final = frozenset(("upstream_unreachable", "upstream_connect_timeout"))

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Listing(msgspec.Struct, frozen=True):
    """What a provider said when it was asked last, at ``at``; ``trouble`` is why it said nothing."""

    at: float
    list: ModelList
    trouble: str = ""


class Listings:
    """See the module's head."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        spawn: Spawn,
        clock: Callable[[], float],
        *,
        timeout: float,
        ttl: float,
    ) -> None:
        """Nothing is asked yet. ``timeout`` and ``ttl`` (how long a list counts as new) in seconds."""
        self._providers = providers
        self._spawn = spawn
        self._clock = clock
        self._timeout = timeout
        self._ttl = ttl
        self._known: dict[str, Listing] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def __repr__(self) -> str:
        """Show how much is known, and who is being asked."""
        sizes = {name: len(known.list.models) for name, known in self._known.items()}
        return f"<Listings {sizes} asking={sorted(self._asking)}>"

    @property
    def known(self) -> Mapping[str, ModelList]:
        """All that was said so far, however old."""
        return {name: known.list for name, known in self._known.items()}

    async def at_hand(
        self, names: Iterable[str], *, patience: float | None = None
    ) -> Mapping[str, ModelList]:
        """Return the lists of ``names`` without waiting for anybody who is slow.

        A list that is old is asked for anew. One that never came yet is waited for, ``patience`` seconds
        at most (None: as long as a question takes). Cancelled, it leaves the questions to go on.
        """
        names = list(names)
        new = self._ask(name for name in names if name not in self._known)
        old = self._ask(name for name in names if self._age(name) >= self._ttl)
        if new:
            await asyncio.wait(new, timeout=patience)
        elif old:
            await asyncio.wait(old, timeout=SOON)
        return self.known

    async def fresh(self, names: Iterable[str], max_age: float | None = None) -> Mapping[str, ModelList]:
        """Return the lists of ``names``, none older than ``max_age`` seconds (None: than ``ttl``); as
        `at_hand` where that is so already."""
        limit = self._ttl if max_age is None else max_age
        if asked := self._ask(name for name in names if self._age(name) >= limit):
            await asyncio.wait(asked)
        return self.known

    def use(self, providers: Mapping[str, Provider]) -> None:
        """Ask ``providers`` from now on; of others than those that were asked so far nothing is known."""
        before, self._providers = self._providers, providers
        self._known = {n: one for n, one in self._known.items() if providers.get(n) is before.get(n)}

    def close(self) -> None:
        """Ask no more; questions under way are dropped."""
        self._closed = True
        for task in self._asking.values():
            task.cancel()

    def _age(self, name: str) -> float:
        known = self._known.get(name)
        return self._clock() - known.at if known else float("inf")

    def _ask(self, names: Iterable[str]) -> "list[asyncio.Task[None]]":
        """Return the questions to ``names``, those that were under way or begin now."""
        names = [] if self._closed else list(names)
        for name in names:
            if name not in self._asking:
                task = self._asking[name] = self._spawn(self._question(name))
                task.add_done_callback(lambda _, name=name: self._asking.pop(name))  # type: ignore[misc]
        return [self._asking[name] for name in names]

    async def _question(self, name: str) -> None:
        """Ask one provider. Raises nothing: an exception here would end the gateway."""
        before, provider = self._known.get(name), self._providers.get(name)
        if provider is None:  # a reload took it away
            return
        kept = before.list if before and not before.trouble else ModelList()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await provider.models()
            known = Listing(self._clock(), ModelList.of(answer))
        except TimeoutError:
            known = Listing(self._clock(), kept, "timeout")
        except PenstockError as error:
            kept = ModelList() if error.code in _UNREACHABLE else kept
            known = Listing(self._clock(), kept, error.code)
        except Exception as bug:  # in the gateway's group, a bug of one provider would end all runs
            log.error("models_crashed", provider=name, exc_info=bug)
            known = Listing(self._clock(), kept, "internal_error")
        if self._providers.get(name) is not provider:
            return  # a reload came between
        self._known[name] = known
        if known.trouble != (before.trouble if before else ""):
            event = "models_unavailable" if known.trouble else "models_available"
            log.info(event, provider=name, reason=known.trouble, models=len(known.list.models))
