"""Requests that are no generations, passed on to a provider as they are: embeddings, audio, images, files.

Owns who answers them: the model's first target, if its provider passes requests on; without a model the
first provider that does. And that the policies are asked as for any call, and told how it ended, as is
whoever observes. There is no stream, no retry and no fallback. What it used is what the answer says of it;
where that says nothing, an estimate of what was sent. A request that names no model is free.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import msgspec

from penstock.gateway.gateway import Gateway
from penstock.gateway.meter import milliseconds
from penstock.gateway.setup import Tenure
from penstock.policies.access import check_model
from penstock.providers.passage import Errand, Passage, PassesOn
from penstock.providers.provider import Target
from penstock.types.calls import Call
from penstock.types.errors import ClientError, PenstockError
from penstock.types.events import Timing, UsageReported
from penstock.types.outcomes import ASIDE, AttemptUse, Outcome
from penstock.types.positions import new_stream_id
from penstock.types.principals import Grant
from penstock.types.signals import (
    AttemptBegan,
    AttemptEnded,
    CallAccepted,
    CallRefused,
    Observer,
    StreamEnded,
    Subject,
    subject_of,
)

__all__ = ["ROUTE", "Aim", "Errand", "Passage", "Relay"]

ROUTE: Final = "relay"
"""What policies know these calls by."""


class Aim(NamedTuple):
    """Who answers a request that is passed on, by the setup of the moment in which it came."""

    target: Target
    provider: PassesOn
    tenure: Tenure


class Relay:
    """See the module's head."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        observe: Observer | None = None,
        parent_of: Callable[[AttemptBegan], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``gateway`` knows who answers, and asks the policies. The others are as a `Gateway` has them."""
        self._gateway = gateway
        self._observe = observe
        self._parent_of = parent_of
        self._clock = clock
        self._wall = wall

    def aim(self, model: str, grant: Grant) -> Aim:
        """Return who answers for ``model`` to whom ``grant`` is; for ``""`` anybody who passes requests on.

        Raises `ClientError`: 404 `model_not_found`, 403 `model_not_allowed`, 400 `unsupported_endpoint`.
        """
        tenure = self._gateway.setups.current
        providers = tenure.setup.providers
        if not model:
            for name, provider in providers.items():
                if isinstance(provider, PassesOn):
                    return Aim(Target(name, name, ""), provider, tenure)
            raise _unsupported("No provider of this gateway has this endpoint.")
        check_model(grant, model)
        target = tenure.setup.routing.route(model, grant=grant)[0]
        provider = providers[target.provider]
        if not isinstance(provider, PassesOn):
            raise _unsupported(f"The provider '{target.provider}' has no such endpoint for '{model[:100]}'.")
        return Aim(target, provider, tenure)

    @asynccontextmanager
    async def passing(self, call: Call, aim: Aim, errand: Errand, operation: str) -> AsyncIterator[Passage]:
        """Ask the policies for ``call``; give ``errand`` on its way, and tell them when it is over.
        ``operation`` is what it asks for. Raises as they do."""
        with self._gateway.setups.hold(aim.tenure):
            asked = self._clock()
            subject = msgspec.structs.replace(subject_of(call), operation=operation)
            try:
                admission = await self._gateway.admit(call)
            except PenstockError as error:
                if self._observe is not None:
                    self._observe(CallRefused(subject, error.code, error.fault, error.status))
                raise
            began, passage, failed = self._clock(), aim.provider.passage(errand), None
            started_at = self._wall()
            subject = msgspec.structs.replace(subject, stream=_new_id(started_at))
            if self._observe is not None:
                self._begin(subject, aim, passage, milliseconds(began - asked))
            try:
                yield passage
            except PenstockError as error:
                failed = error
                raise
            finally:
                passage.abort()
                outcome = _outcome(subject.stream, call, aim, passage, failed or passage.error)
                outcome = msgspec.structs.replace(
                    outcome, started_at=started_at, total_ms=milliseconds(self._clock() - began)
                )
                admission.settle(outcome if outcome.attempts else ASIDE)
                if self._observe is not None:
                    self._end(subject, aim, outcome, failed or passage.error)

    def _begin(self, subject: Subject, aim: Aim, passage: Passage, queued_ms: float) -> None:
        began = AttemptBegan(
            subject, 1, "first", aim.target.name, aim.target.provider, aim.target.model or subject.model
        )
        if self._observe is not None:
            self._observe(CallAccepted(subject, queued_ms))
            self._observe(began)
        if self._parent_of is not None and (parent := self._parent_of(began)):
            passage.add_header("traceparent", parent)

    def _end(self, subject: Subject, aim: Aim, outcome: Outcome, error: PenstockError | None) -> None:
        if self._observe is None:
            return
        used = outcome.attempts[0].usage if outcome.attempts else None
        target = aim.target
        self._observe(
            AttemptEnded(
                subject,
                1,
                "first",
                target.name,
                target.provider,
                target.model or subject.model,
                code=outcome.code,
                led=outcome.status == "completed",
                total_ms=outcome.total_ms,
                usage=used,
            )
        )
        fault = error.fault if error is not None else "client" if outcome.code else None
        timing = Timing(total_ms=outcome.total_ms)
        self._observe(StreamEnded(subject, outcome, target.name, fault, timing, used))


def _outcome(stream: str, call: Call, aim: Aim, passage: Passage, error: PenstockError | None) -> Outcome:
    """Return how a request went that is over."""
    code = error.code if error is not None else "" if passage.whole else "client_disconnected"
    status: Final = "failed" if error is not None else "cancelled" if code else "completed"
    if not call.request.model:
        return Outcome(status, stream, code)
    usage = passage.usage
    if usage is None:
        refused = error is not None and not passage.answers
        usage = UsageReported(0 if refused else call.input_tokens, estimated=not refused)
    target = aim.target
    use = AttemptUse(target.name, target.provider, target.model or call.request.model, usage, code)
    return Outcome(status, stream, code, (use,))


def _new_id(now: float) -> str:
    """Return an id of the form of a stream's, that no stream has."""
    return "p" + new_stream_id(now=now)[1:]


def _unsupported(message: str) -> ClientError:
    what = "It is for models of OpenAI-compatible providers."
    return ClientError(f"{message} {what}", code="unsupported_endpoint")
