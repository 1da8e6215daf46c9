"""What may be said: word lists, patterns and detectors over requests and over answers as they stream.

Each text of an answer (the text of a choice, its reasoning, a refusal, the arguments of each tool call) is
scanned by itself, whatever its pieces; see `penstock.policies.rules` for what is held back and shown. A
text is over when its choice goes on with something else, and with it what was held back.

A match of a blocking rule in a request refuses it; in an answer it ends the stream there, with the finish
reason ``content_filter``. Masks replace what was found; flags are logged (never what was found).
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from penstock.policies.policy import Admission, EventFilter, FilterStop
from penstock.policies.rules import Rule, Rules, TextScan
from penstock.types.calls import Call
from penstock.types.decisions import Decision, Verdict
from penstock.types.errors import ClientError, GatewayError
from penstock.types.events import (
    AnyEvent,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from penstock.types.requests import GenerationRequest, Message, TextPart, ToolCall
from penstock.types.signals import ContentMatched, Observer

log = structlog.get_logger(__name__)

MAX_TEXTS: Final = 1_000
"""Texts of one answer that are scanned at once; a provider that opens more has lost its mind."""

_Delta: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta
_DELTAS: Final = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta)


class Scope(msgspec.Struct, frozen=True):
    """Where a filter looks: at calls whose model and principal match a pattern and at those of ``presets``,
    in requests, in answers, and there at the reasoning and at the arguments of tools, too."""

    models: tuple[str, ...] = ("*",)
    principals: tuple[str, ...] = ("*",)
    presets: tuple[str, ...] = ()
    input: bool = True
    output: bool = True
    reasoning: bool = True
    tools: bool = True


class ContentFilter:
    """A policy. ``current`` gives its rules: a reload exchanges them, and answers keep theirs."""

    def __init__(
        self,
        name: str,
        current: Callable[[], Rules],
        scope: Scope | None = None,
        observe: Observer | None = None,
    ) -> None:
        """``name`` is the one in the configuration; ``observe`` is told what was found, as the log is."""
        self.name = name
        self._observe = observe
        self._current = current
        self._scope = scope or Scope()

    def __repr__(self) -> str:
        """Which filter."""
        return f"<ContentFilter {self.name}>"

    def _concerns(self, call: Call) -> bool:
        scope = self._scope
        if call.preset and call.preset in scope.presets:
            return True
        return any(fnmatchcase(call.request.model, pattern) for pattern in scope.models) and any(
            fnmatchcase(call.principal.id, pattern) for pattern in scope.principals
        )

    async def admit(self, call: Call) -> Admission:
        """Refuse or mask what the request says. Raises `ClientError` 400 `content_filter`."""
        if not self._concerns(call):
            return Admission(call)
        watches = self._decision("watches", "the answer") if self._scope.output else ()
        if not self._scope.input:
            return Admission(call, decisions=watches)
        whole = _Whole(self._current(), self.name, call, self._observe)
        request = whole.request(call.request)
        whole.report("input")
        if request is call.request:
            decided = self._decision("passed", f"the request{whole.summary()}")
        else:
            decided = self._decision("masked", f"the request{whole.summary()}")
            call = msgspec.structs.replace(call, request=request)
        return Admission(call, decisions=decided + watches)

    def _decision(self, verdict: Verdict, detail: str) -> tuple[Decision, ...]:
        return (Decision(f"filter {self.name}", verdict, detail),)

    def filter(self, call: Call) -> EventFilter | None:
        """Return what the answer passes through; None for calls that it does not concern."""
        if not (self._scope.output and self._concerns(call)):
            return None
        return AnswerFilter(self._current(), self._scope, self.name, call.ids, self._observe)


class _Whole:
    """The texts of one request, each whole."""

    def __init__(self, rules: Rules, name: str, call: Call, observe: Observer | None) -> None:
        self._rules = rules
        self._observe = observe
        self._name = name
        self._call = call
        self._found: dict[int, int] = {}

    def request(self, request: GenerationRequest) -> GenerationRequest:
        messages = tuple(map(self._message, request.messages))
        if all(new is old for new, old in zip(messages, request.messages, strict=True)):
            return request
        return msgspec.structs.replace(request, messages=messages)

    def report(self, where: str) -> None:
        _report(self._rules, self._found, self._name, self._call.ids, where, self._observe)

    def summary(self) -> str:
        """Say which rules found something, and how often; never what."""
        found = ", ".join(
            f"{self._rules.rules[number].name} ({self._rules.rules[number].action}) × {count}"
            for number, count in self._found.items()
        )
        return f": {found}" if found else ""

    def _message(self, message: Message) -> Message:
        changed: dict[str, Any] = {}
        content = message.content
        if isinstance(content, str):
            changed["content"] = self._text(content)
        elif content is not None:
            changed["content"] = tuple(
                msgspec.structs.replace(part, text=self._text(part.text)) if type(part) is TextPart else part
                for part in content
            )
        if message.tool_calls:
            changed["tool_calls"] = tuple(map(self._tool_call, message.tool_calls))
        if all(getattr(message, name) == value for name, value in changed.items()):
            return message
        return msgspec.structs.replace(message, **changed)

    def _tool_call(self, call: ToolCall) -> ToolCall:
        return msgspec.structs.replace(call, arguments=self._text(call.arguments))

    def _text(self, text: str) -> str:
        scan = TextScan(self._rules)
        try:
            shown = scan.feed(text) + scan.flush()
        except TimeoutError:
            raise _too_slow(self._name) from None
        for rule, count in scan.found.items():
            self._found[rule] = self._found.get(rule, 0) + count
        if scan.blocked is not None:
            self.report("input")
            raise ClientError(
                f"The request has something in it that the filter '{self._name}' does not let through "
                f"(rule '{scan.blocked.name}').",
                code="content_filter",
                param="messages",
            )
        return shown


_Key: TypeAlias = tuple[type, int, int]
"""A text of an answer: its kind, its choice, its part or call."""


class AnswerFilter:
    """An `EventFilter` for one answer."""

    def __init__(
        self,
        rules: Rules,
        scope: Scope,
        name: str,
        ids: Mapping[str, str],
        observe: Observer | None = None,
    ) -> None:
        """``rules`` are those of this answer, whatever is reloaded; ``ids`` are the call's, for the log."""
        self._rules = rules
        self._observe = observe
        self._scope = scope
        self._name = name
        self._ids = ids
        self._texts: dict[_Key, tuple[TextScan, _Delta]] = {}
        self._choices: set[int] = set()
        self._found: dict[int, int] = {}

    def feed(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """See `EventFilter`."""
        out: list[AnyEvent] = []
        try:
            for event in events:
                kind = type(event)
                if (
                    kind is TextDelta
                    or kind is ReasoningDelta
                    or kind is RefusalDelta
                    or kind is ToolCallDelta
                ):
                    self._scan(event, out)  # type: ignore[arg-type]
                else:
                    if kind is Finished:
                        self._over(event.index, None, out)  # type: ignore[union-attr]
                        self._choices.discard(event.index)  # type: ignore[union-attr]
                    out.append(event)
        except _Blocked as blocked:
            raise self._stop(out, blocked.rule) from None
        except TimeoutError:
            raise FilterStop(out, _too_slow(self._name)) from None
        return out

    def flush(self) -> Sequence[AnyEvent]:
        """See `EventFilter`."""
        out: list[AnyEvent] = []
        try:
            for key in list(self._texts):
                self._end(key, out)
        except _Blocked as blocked:
            raise self._stop(out, blocked.rule) from None
        except TimeoutError:
            raise FilterStop(out, _too_slow(self._name)) from None
        self._report()
        self._found = {}
        return out

    def _scan(self, event: _Delta, out: list[AnyEvent]) -> None:
        kind = type(event)
        part = event.call if kind is ToolCallDelta else getattr(event, "part", 0)  # type: ignore[union-attr]
        key = (kind, event.index, part)
        self._choices.add(event.index)
        if (kind is ReasoningDelta and not self._scope.reasoning) or (
            kind is ToolCallDelta and not self._scope.tools
        ):
            self._over(event.index, key, out)
            out.append(event)
            return
        known = self._texts.get(key)
        if known is None:
            self._over(event.index, key, out)
            if len(self._texts) >= MAX_TEXTS:
                raise FilterStop(out, GatewayError("The answer has too many parts.", code="filter_failed"))
            known = self._texts[key] = (TextScan(self._rules), event)
        scan = known[0]
        shown = scan.feed(event.delta)
        if shown == event.delta:
            out.append(event)
        elif shown or _says_more(event):
            out.append(_with_delta(event, shown))
        if scan.blocked is not None:
            self._collect(scan)
            raise _Blocked(scan.blocked)

    def _over(self, index: int, but: _Key | None, out: list[AnyEvent]) -> None:
        """The choice ``index`` goes on with something else than its texts so far: they are over.

        Calls of tools may come side by side, so one does not end another.
        """
        for key in list(self._texts):
            if key[1] == index and key != but and not (but and key[0] is but[0] is ToolCallDelta):
                self._end(key, out)

    def _end(self, key: _Key, out: list[AnyEvent]) -> None:
        scan, first = self._texts.pop(key)
        if rest := scan.flush():
            out.append(_piece(first, rest))
        self._collect(scan)
        if scan.blocked is not None:
            raise _Blocked(scan.blocked)

    def _collect(self, scan: TextScan) -> None:
        for rule, count in scan.found.items():
            self._found[rule] = self._found.get(rule, 0) + count

    def _report(self) -> None:
        _report(self._rules, self._found, self._name, self._ids, "output", self._observe)

    def _stop(self, shown: list[AnyEvent], rule: Rule) -> FilterStop:
        """End the answer: every choice that goes on is finished by the filter."""
        self._report()
        self._found, self._texts = {}, {}
        raw = f"penstock:{rule.name}"
        return FilterStop(
            [*shown, *(Finished("content_filter", index, raw) for index in sorted(self._choices))]
        )


class _Blocked(Exception):
    """A blocking rule has matched."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.name)
        self.rule = rule


def _says_more(event: _Delta) -> bool:
    """Say whether a delta has something besides its text that must reach the client."""
    return bool(
        getattr(event, "id", "")
        or getattr(event, "name", "")
        or getattr(event, "signature", "")
        or getattr(event, "encrypted", "")
        or event.extra
    )


def _with_delta(event: _Delta, delta: str) -> _Delta:
    """Return ``event`` with another text; the probabilities of its tokens would tell the old one."""
    if type(event) is TextDelta:
        return msgspec.structs.replace(event, delta=delta, logprobs=None)
    return msgspec.structs.replace(event, delta=delta)


def _piece(first: _Delta, delta: str) -> _Delta:
    """Return a further piece of the text that began with ``first``."""
    match first:
        case TextDelta():
            return TextDelta(delta, first.index, first.part)
        case ReasoningDelta():
            return ReasoningDelta(delta, first.index, first.part, first.summary)
        case RefusalDelta():
            return RefusalDelta(delta, first.index)
        case ToolCallDelta():
            return ToolCallDelta(first.call, delta, index=first.index, kind=first.kind)


def _too_slow(name: str) -> GatewayError:
    message = f"A pattern of the filter '{name}' takes too long; nothing is let through unseen."
    return GatewayError(message, code="filter_failed")


def _report(
    rules: Rules,
    found: dict[int, int],
    name: str,
    ids: Mapping[str, str],
    where: str,
    observe: Observer | None,
) -> None:
    for number, count in found.items():
        rule = rules.rules[number]
        log.info(
            "content_matched",
            **ids,
            filter=name,
            rule=rule.name,
            action=rule.action,
            where=where,
            count=count,
        )
        if observe is not None:
            request_id = ids.get("request_id", "")
            observe(ContentMatched(name, rule.name, rule.action, where, count, request_id))
