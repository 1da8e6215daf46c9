"""What a reload replaces at once, and how long it lives: providers, routes, rules.

A `Setup` is immutable. Whoever begins something (a call, a count, a request that is passed on) holds the
setup of that moment until it is over, so a reload changes nothing that is under way. `Setups` knows the
current one and counts who holds which. Setups share what did not change; what only a replaced one has is
closed when its last holder lets go. Settings and what they are made from do not enter.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

import msgspec
import structlog

from penstock.gateway.router import Routing
from penstock.policies.policy import Policy
from penstock.policies.review import Review
from penstock.providers.provider import Provider
from penstock.types.calls import Call

log = structlog.get_logger(__name__)

PROVIDER_CLOSE: Final = 2.0
"""Seconds that a provider gets to close its connections."""

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], object]


class Companion(Protocol):
    """What lives with the gateway, or with a setup: opened before it is used, closed when nothing uses it."""

    async def open(self) -> None:
        """Be ready. Raises `PenstockError` when that cannot be: then nothing starts."""
        ...

    async def aclose(self) -> None:
        """Finish what is begun, and let go."""
        ...


class Setup(msgspec.Struct, frozen=True):
    """Who answers, and by which rules. ``companions`` are what the rules need to be alive."""

    providers: Mapping[str, Provider]
    routing: Routing
    policy: Policy
    review: Callable[[Call], Review | None]
    companions: Sequence[Companion] = ()


class Tenure:
    """One setup and how many hold it."""

    __slots__ = ("holders", "setup")

    def __init__(self, setup: Setup) -> None:
        """Nobody does yet."""
        self.setup = setup
        self.holders = 0

    def __repr__(self) -> str:
        """Count the holders."""
        return f"<Tenure {self.holders} holders>"


def _nothing() -> None:
    return None


class Setups:
    """See the module's head."""

    def __init__(self, first: Setup, spawn: Spawn, changed: Callable[[], None] = _nothing) -> None:
        """``spawn`` starts the closing of what nobody uses any more; ``changed`` is called when there is
        another current one, and when one that was is left by its last holder."""
        self.current = Tenure(first)
        self._spawn = spawn
        self._living = [self.current]
        self._open: list[Companion] = []
        self._stopped = False
        self._changed = changed

    def __repr__(self) -> str:
        """Count those that live."""
        return f"<Setups {len(self._living)} living, {self.current.holders} hold the current one>"

    @property
    def living(self) -> int:
        """How many setups there are: the current one, and those that something under way holds."""
        return len(self._living)

    @property
    def routings(self) -> Sequence[Routing]:
        """Of those that live; the current one is the last."""
        return [one.setup.routing for one in self._living]

    async def open(self, setup: Setup) -> None:
        """Open what ``setup`` has and no living one. Raises `PenstockError`; then nothing is left open."""
        opened: list[Companion] = []
        try:
            for companion in setup.companions:
                if not _has(self._open, companion):
                    await companion.open()
                    opened.append(companion)
        except BaseException:
            for companion in reversed(opened):
                await companion.aclose()
            raise
        self._open += opened

    def use(self, setup: Setup) -> None:
        """Make ``setup``, which is open, the current one."""
        before, self.current = self.current, Tenure(setup)
        self._living.append(self.current)
        self._retire(before)
        self._changed()

    def take(self, tenure: Tenure | None = None) -> Callable[[], None]:
        """Hold ``tenure`` (None: the current one); call the result when it is over, exactly once."""
        held = tenure or self.current
        held.holders += 1

        def leave() -> None:
            held.holders -= 1
            if self._retire(held):
                self._changed()

        return leave

    @contextmanager
    def hold(self, tenure: Tenure | None = None) -> Iterator[Tenure]:
        """As `take`, for a block."""
        held = tenure or self.current
        leave = self.take(held)
        try:
            yield held
        finally:
            leave()

    def _retire(self, tenure: Tenure) -> bool:
        if tenure is self.current or tenure.holders or tenure not in self._living or self._stopped:
            return False
        self._living.remove(tenure)
        providers, companions = self._freed(tenure)
        if providers or companions:
            self._spawn(_close(providers, companions))
        return True

    def _freed(self, tenure: Tenure) -> tuple[list[tuple[str, Provider]], list[Companion]]:
        """Return what ``tenure`` had and no living one has."""
        setups = [one.setup for one in self._living]
        providers = [
            (name, provider)
            for name, provider in tenure.setup.providers.items()
            if not any(_has(setup.providers.values(), provider) for setup in setups)
        ]
        companions = [
            one
            for one in tenure.setup.companions
            if _has(self._open, one) and not any(_has(setup.companions, one) for setup in setups)
        ]
        self._open = [one for one in self._open if not _has(companions, one)]
        return providers, companions

    def stop(self) -> None:
        """Close nothing by itself from now on: `aclose` is to come."""
        self._stopped = True

    async def aclose(self) -> None:
        """Close everything: no call is left."""
        self._stopped = True
        each = {
            id(one): (name, one) for tenure in self._living for name, one in tenure.setup.providers.items()
        }
        companions, self._open = self._open, []
        await _close(list(each.values()), companions[::-1])


async def _close(providers: Sequence[tuple[str, Provider]], companions: Sequence[Companion]) -> None:
    """Never raises: what cannot be closed is logged."""
    for name, provider in providers:
        try:
            async with asyncio.timeout(PROVIDER_CLOSE):
                await provider.aclose()
        except TimeoutError:
            log.warning("provider_not_closed", provider=name)
        except Exception as bug:  # in the gateway's group, it would end all runs
            log.error("provider_not_closed", provider=name, exc_info=bug)
    for companion in companions:
        try:
            await companion.aclose()
        except Exception as bug:  # as above
            log.error("companion_not_closed", companion=repr(companion), exc_info=bug)


def _has(known: Any, one: object) -> bool:
    return any(other is one for other in known)
