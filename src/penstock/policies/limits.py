"""Limits: requests and tokens in a time, streams at once; for each key, team, principal, model or address.

A `Gate` is one rule for one subject. A call passes all its gates at once or none. Where a rule has a
queue, a call that does not pass waits in it, within a bound and for a bounded time; who waits is served
in turn by principal, so that one with a thousand calls is no better off than one with a single one, and
nobody who comes later overtakes. What was taken for a call is given back at its settlement, whatever
ended it: streams at once cannot leak. Tokens are taken as estimated and corrected by what was used.

State is this process's. The clock is passed in; waiting is the loop's timers.
"""

import asyncio
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from penstock.policies.policy import Admission, EventFilter
from penstock.policies.windows import Window
from penstock.types.allowances import Allowance, Quota
from penstock.types.calls import Call
from penstock.types.decisions import Decision
from penstock.types.errors import ClientError
from penstock.types.outcomes import Outcome
from penstock.types.principals import OF, Principal

By: TypeAlias = Literal["key", "team", "principal", "model", "preset", "address", "all"]

MINUTE: Final = 60.0
DAY: Final = 86_400.0

MAX_GATES: Final = 100_000
"""Gates that are held; those where nothing goes on are forgotten above that."""


class Limit(msgspec.Struct, frozen=True):
    """One rule, for each subject whose name fits ``match``; 0 for no limit.

    ``queue``: how many calls may wait at a gate of this rule, each for at most ``wait`` seconds.
    """

    by: By = "key"
    match: str = "*"
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent: int = 0
    queue: int = 0
    wait: float = 10.0

    def subject(self, principal: Principal, model: str, preset: str = "") -> str | None:
        """Return whose gate of this rule a call passes; None for nobody's."""
        match self.by:
            case "key":
                name = principal.id.partition(OF)[0]
            case "principal":
                name = principal.id
            case "team":
                name = principal.team
            case "model":
                name = model
            case "preset":
                name = preset
            case "address":
                name = neighbourhood(principal.address)
            case "all":
                return "everybody"
        return name if name and fnmatchcase(name, self.match) else None


def neighbourhood(address: str) -> str:
    """Return what is limited together: an address, or the /64 that one site has of IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


class Gate:
    """One rule for one subject."""

    __slots__ = ("day", "name", "requests", "rule", "running", "tokens", "waiting")

    def __init__(self, rule: Limit, name: str) -> None:
        """Nobody has passed yet. ``name`` is for people."""
        self.rule = rule
        self.name = name
        self.requests = Window(rule.requests_per_minute, MINUTE) if rule.requests_per_minute else None
        self.tokens = Window(rule.tokens_per_minute, MINUTE) if rule.tokens_per_minute else None
        self.day = Window(rule.tokens_per_day, DAY) if rule.tokens_per_day else None
        self.running = 0
        self.waiting = 0

    def __repr__(self) -> str:
        """Say how full it is."""
        return f"<Gate {self.name} {self.running} running, {self.waiting} waiting>"

    def follow(self, rule: Limit) -> None:
        """Be a gate of ``rule`` from now on; what was taken and who passed still counts."""
        self.rule = rule
        self.requests = _resized(self.requests, rule.requests_per_minute, MINUTE)
        self.tokens = _resized(self.tokens, rule.tokens_per_minute, MINUTE)
        self.day = _resized(self.day, rule.tokens_per_day, DAY)

    @property
    def full(self) -> bool:
        """Whether as many streams go on as may."""
        return 0 < self.rule.concurrent <= self.running

    def free_in(self, now: float, tokens: int) -> float:
        """Return the seconds until a call of ``tokens`` may pass, as far as that is a matter of time."""
        return max(
            self.requests.free_in(now, 1) if self.requests else 0.0,
            self.tokens.free_in(now, tokens) if self.tokens else 0.0,
            self.day.free_in(now, tokens) if self.day else 0.0,
        )

    def standing(self) -> str:
        """Say how much of it is used, for people."""
        rule = self.rule
        said = [
            f"{window.total:,} of {window.limit:,} {what}"
            for window, what in (
                (self.requests, "requests a minute"),
                (self.tokens, "tokens a minute"),
                (self.day, "tokens a day"),
            )
            if window is not None
        ]
        if rule.concurrent:
            said.append(f"{self.running:,} of {rule.concurrent:,} streams at once")
        return f"{', '.join(said)} for {self.name}"

    def open_to(self, now: float, tokens: int) -> bool:
        """Say whether a call may pass now."""
        return not self.full and self.free_in(now, tokens) <= 0

    def idle(self, now: float) -> bool:
        """Say whether it can be forgotten."""
        windows = [window for window in (self.requests, self.tokens, self.day) if window is not None]
        return not (self.running or self.waiting or any(w.full_in(now) > 0 for w in windows))


def _resized(window: Window | None, limit: int, span: float) -> Window | None:
    if not limit:
        return None
    if window is None:
        return Window(limit, span)
    window.limit = limit
    return window


class _Passed(NamedTuple):
    """What one call took from one gate: slots of its windows."""

    gate: Gate
    requests: int
    tokens: int
    day: int


class _Waiter:
    """A call at closed gates."""

    __slots__ = ("gates", "granted", "principal", "tokens")

    def __init__(self, gates: Sequence[Gate], principal: str, tokens: int) -> None:
        self.gates = gates
        self.principal = principal
        self.tokens = tokens
        self.granted: asyncio.Future[list[_Passed]] = asyncio.get_running_loop().create_future()


class Limits:
    """A `Policy`; see the module's head."""

    def __init__(self, rules: Sequence[Limit], clock: Callable[[], float]) -> None:
        """``clock`` gives seconds from any origin, as the loop's timers count them."""
        self._rules = tuple(rules)
        self._clock = clock
        self._gates: dict[tuple[int, str], Gate] = {}
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Count what goes on."""
        return f"<Limits {len(self._gates)} gates, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return sum(map(len, self._queues.values()))

    @property
    def running(self) -> int:
        """How many streams are counted, at all gates together."""
        return sum(gate.running for gate in self._gates.values())

    def use(self, rules: Sequence[Limit]) -> None:
        """Let in by ``rules`` from now on. A rule for the same subjects (``by`` and ``match``) keeps what it
        has counted; who waits at a gate of a rule that is gone passes it."""
        known: dict[tuple[str, str], list[int]] = {}
        for number, rule in enumerate(rules):
            known.setdefault((rule.by, rule.match), []).append(number)
        numbers: list[int | None] = []
        for rule in self._rules:
            left = known.get((rule.by, rule.match))
            numbers.append(left.pop(0) if left else None)
        gates = {}
        for (before, subject), gate in self._gates.items():
            now = numbers[before]
            if now is None:
                gate.follow(Limit(queue=gate.rule.queue))
            else:
                gate.follow(rules[now])
                gates[now, subject] = gate
        self._rules, self._gates = tuple(rules), gates
        if self._queues:
            self._serve()

    # --- Policy --------------------------------------------------------------------------------

    async def admit(self, call: Call) -> Admission:
        """Raises `ClientError`: 429 when a gate is closed, 413 when the request will never fit."""
        gates = self._gates_of(call.principal, call.request.model, call.preset)
        if not gates:
            return Admission(call)
        tokens = call.input_tokens
        for gate in gates:
            self._refuse_too_large(gate, tokens)
        now = self._clock()
        if not any(gate.waiting for gate in gates) and all(gate.open_to(now, tokens) for gate in gates):
            passed, waited = self._pass(gates, now, tokens), 0.0
        else:
            passed = await self._wait(gates, call.principal.id, tokens, now)
            waited = self._clock() - now
        decided = (
            Decision(
                "limits",
                "waited" if waited else "passed",
                "; ".join(gate.standing() for gate in gates),
                round(waited * 1000, 3),
            ),
        )
        return Admission(call, lambda outcome: self._settle(passed, tokens, outcome), decided)

    def filter(self, call: Call) -> EventFilter | None:
        """Nothing is filtered."""
        return None

    def _refuse_too_large(self, gate: Gate, tokens: int) -> None:
        for window in (gate.tokens, gate.day):
            if window is not None and tokens > window.limit:
                message = (
                    f"The request has about {tokens:,} tokens, more than the {window.limit:,} that "
                    f"{gate.name} may use in {'a day' if window.span == DAY else 'a minute'}."
                )
                raise ClientError(message, code="request_too_large", status=413)

    # --- waiting -------------------------------------------------------------------------------

    async def _wait(self, gates: Sequence[Gate], principal: str, tokens: int, now: float) -> list[_Passed]:
        closed = [gate for gate in gates if gate.waiting or not gate.open_to(now, tokens)]
        patience = min(gate.rule.wait for gate in closed)
        for gate in closed:
            if gate.waiting >= gate.rule.queue or gate.free_in(now, tokens) > patience:
                raise self._refusal(gate, now, tokens)
        waiter = _Waiter(gates, principal, tokens)
        self._queues.setdefault(principal, deque()).append(waiter)
        for gate in gates:
            gate.waiting += 1
        self._serve()
        try:
            async with asyncio.timeout(patience):
                return await waiter.granted
        except TimeoutError:
            if waiter.granted.done() and not waiter.granted.cancelled():  # served in the very last moment
                return waiter.granted.result()
            gate = next((g for g in gates if not g.open_to(self._clock(), tokens)), closed[0])
            raise self._refusal(gate, self._clock(), tokens) from None
        except asyncio.CancelledError:
            # Served in the very turn in which it was cancelled: what it was given, nobody will settle.
            if waiter.granted.done() and not waiter.granted.cancelled():
                self._leave(waiter.granted.result(), tokens)
            raise
        finally:
            self._forget_waiter(waiter)

    def _forget_waiter(self, waiter: _Waiter) -> None:
        queue = self._queues.get(waiter.principal)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[waiter.principal]
            for gate in waiter.gates:
                gate.waiting -= 1
            self._serve()

    def _serve(self) -> None:
        """Let in who may, in turn by principal; come again when that may change by itself."""
        now = self._clock()
        soonest = float("inf")
        served = True
        while served:
            served = False
            soonest = float("inf")
            for principal in list(self._queues):
                queue = self._queues[principal]
                waiter = queue[0]
                if waiter.granted.done():  # timed out or cancelled, and about to leave
                    continue
                if all(gate.open_to(now, waiter.tokens) for gate in waiter.gates):
                    queue.popleft()
                    if queue:
                        self._queues.move_to_end(principal)
                    else:
                        del self._queues[principal]
                    for gate in waiter.gates:
                        gate.waiting -= 1
                    waiter.granted.set_result(self._pass(waiter.gates, now, waiter.tokens))
                    served = True
                else:
                    due = max(gate.free_in(now, waiter.tokens) for gate in waiter.gates)
                    if due > 0:
                        soonest = min(soonest, due)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if soonest < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(soonest, self._serve)

    def _refusal(self, gate: Gate, now: float, tokens: int) -> ClientError:
        rule = gate.rule
        due = gate.free_in(now, tokens)
        if due > 0:
            said = [
                (f"{rule.requests_per_minute:,} requests a minute", gate.requests, 1),
                (f"{rule.tokens_per_minute:,} tokens a minute", gate.tokens, tokens),
                (f"{rule.tokens_per_day:,} tokens a day", gate.day, tokens),
            ]
            what = next(text for text, w, count in said if w is not None and w.free_in(now, count) == due)
            message = f"The limit of {what} for {gate.name} is reached. Try again in {due:.0f} s."
            error = ClientError(message, code="rate_limit_exceeded", status=429)
        else:
            message = (
                f"The limit of {rule.concurrent:,} streams at once for {gate.name} is reached. "
                "Try again when one has ended."
            )
            error = ClientError(message, code="concurrency_limit_exceeded", status=429)
            due = 1.0
        error.retryable = True
        error.retry_after = max(due, 0.001)
        return error

    # --- gates ---------------------------------------------------------------------------------

    def _pass(self, gates: Sequence[Gate], now: float, tokens: int) -> list[_Passed]:
        passed = []
        for gate in gates:
            gate.running += 1
            passed.append(
                _Passed(
                    gate,
                    gate.requests.take(now, 1) if gate.requests else 0,
                    gate.tokens.take(now, tokens) if gate.tokens else 0,
                    gate.day.take(now, tokens) if gate.day else 0,
                )
            )
        return passed

    def _settle(self, passed: Sequence[_Passed], tokens: int, outcome: Outcome) -> None:
        now = self._clock()
        used = outcome.input_tokens + outcome.output_tokens if outcome.counts else 0
        for gate, request, minute, day in passed:
            gate.running -= 1
            if gate.requests is not None and outcome.status == "unstarted":
                gate.requests.give_back(request, 1)
            for window, slot in ((gate.tokens, minute), (gate.day, day)):
                if window is not None and used > tokens:
                    window.take(now, used - tokens)
                elif window is not None:
                    window.give_back(slot, tokens - used)
        if self._queues:
            self._serve()

    def _leave(self, passed: Sequence[_Passed], tokens: int) -> None:
        """Give everything back: the call was gone before it could use any of it."""
        for gate, request, minute, day in passed:
            gate.running -= 1
            for window, slot in ((gate.requests, request), (gate.tokens, minute), (gate.day, day)):
                if window is not None:
                    window.give_back(slot, 1 if window is gate.requests else tokens)
        self._serve()

    def _gates_of(self, principal: Principal, model: str, preset: str = "") -> list[Gate]:
        found = []
        for number, rule in enumerate(self._rules):
            subject = rule.subject(principal, model, preset)
            if subject is not None:
                found.append(self._gate(number, subject))
        return found

    def _gate(self, number: int, subject: str) -> Gate:
        gate = self._gates.get((number, subject))
        if gate is None:
            if len(self._gates) >= MAX_GATES:
                now = self._clock()
                self._gates = {key: gate for key, gate in self._gates.items() if not gate.idle(now)}
            rule = self._rules[number]
            name = subject if rule.by == "all" else f"the {rule.by} '{subject[:100]}'"
            gate = self._gates[number, subject] = Gate(rule, name)
        return gate

    # --- what is told --------------------------------------------------------------------------

    def allowance(self, principal: Principal) -> Allowance | None:
        """Return how much ``principal`` may use now, by the tightest of its limits but those of models."""
        now = self._clock()
        requests: list[Window] = []
        tokens: list[Window] = []
        for number, rule in enumerate(self._rules):
            subject = None if rule.by in ("model", "preset") else rule.subject(principal, "")
            if subject is not None:
                gate = self._gate(number, subject)
                requests += [gate.requests] if gate.requests else []
                tokens += [window for window in (gate.tokens, gate.day) if window]
        if not requests and not tokens:
            return None
        return Allowance(_tightest(requests, now), _tightest(tokens, now))

    def restore(self, used: Iterable[tuple[str, str, str, float, int]]) -> None:
        """Count what was used before this process began: principal, team, model, how many seconds ago, and
        tokens."""
        now = self._clock()
        for principal, team, model, age, tokens in sorted(used, key=lambda one: -one[3]):
            for gate in self._gates_of(Principal(principal, team=team), model):
                if gate.day is not None:
                    gate.day.take(now - age, tokens)


def _tightest(windows: Iterable[Window], now: float) -> Quota | None:
    found = [Quota(w.limit, w.remaining(now), w.full_in(now)) for w in windows]
    return min(found, key=lambda quota: quota.remaining, default=None)
