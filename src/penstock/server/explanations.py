"""``GET /v1/streams/{stream}/explanation``: who asked, by which rules, where to and why, how long.

For the stream's owner and for administrators; whoever only has a link reads the answer and is told no more.
Made of what is stored (the catalogue's row, the log, the ledger) and, while the stream goes on, of what its
run and its readers say of themselves.
"""

from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from penstock.gateway.run import Account
from penstock.server.context import Context
from penstock.server.exchanges import current_request_id
from penstock.server.reads import dict_of, read_on, stream_headers, visit
from penstock.streams.stream import Stream
from penstock.types.decisions import Admitted
from penstock.types.errors import ClientError, PenstockError
from penstock.types.events import (
    AnyEvent,
    AttemptReport,
    Closed,
    Finished,
    Seam,
    Started,
    Timing,
    UsageReported,
    has_output,
)
from penstock.types.explanations import Asked, AttemptSeen, Ending, Explanation, SeamSeen, Way
from penstock.types.positions import Cursor
from penstock.types.usage import USD

_encode = msgspec.json.Encoder().encode


async def explanation(request: Request) -> Response:
    """``GET /v1/streams/{stream}/explanation``."""
    ctx, stream, _ = await visit(request, "own")
    body = _encode(await explain(ctx, stream))
    return Response(body, 200, dict_of(stream_headers(stream, None, current_request_id())))


async def explain(ctx: Context, stream: Stream) -> Explanation:
    """Explain ``stream``. Raises `StorageError`, and `ClientError` 410, 422 where its log is too long."""
    upto, state = stream.committed, stream.state
    account = ctx.gateway.account(stream)
    told = Told()
    after = 0
    while after < upto:
        for entry in await read_on(stream, after):
            if entry.seq > upto:
                break
            told.add(entry.seq, entry.event)
            after = entry.seq
        if after > ctx.settings.max_answer_events:
            message = "The answer has too many parts to be explained."
            raise ClientError(message, code="answer_too_large", status=422)
    info, closed = stream.info, told.closed
    admitted = info.admitted or Admitted()
    costs = await _costs(ctx, stream)
    known = [cost for cost in costs.values() if cost is not None]
    return Explanation(
        id=stream.id,
        status=state,
        cursor=str(Cursor(stream.id, stream.position(upto))),
        entries=upto,
        asked=Asked(
            at=round(info.created_at, 3),
            principal=info.principal,
            route=info.route,
            dialect=info.dialect,
            model=info.model,
            key=info.payer.key,
            team=info.payer.team,
            preset=info.payer.preset,
            request_id=admitted.request_id,
            input_tokens=info.payer.input_tokens,
            idempotent=bool(info.idempotency_key),
            at_rest=info.at_rest,
            metadata=info.metadata,
        ),
        policies=admitted.decisions,
        way=Way(admitted.route, admitted.balance, admitted.passed_over, admitted.hedged),
        attempts=_attempts(closed, account, costs, told),
        seams=tuple(told.seams),
        timing=closed.timing if closed is not None else account.timing if account is not None else None,
        usage=(closed.usage if closed is not None else None) or told.usage,
        cost_usd=sum(known) / USD if known else None,
        answered_as=told.answered_as,
        dropped=told.dropped,
        doing=account.doing if account is not None and closed is None else None,
        silent_ms=account.silent_ms if account is not None and closed is None else 0.0,
        end=_ending(closed, told, info.closed_at) if closed is not None else None,
        readers=ctx.audience.of(stream),
    )


class Finish(NamedTuple):
    """How the model finished."""

    reason: str = ""
    detail: str = ""


class Told:
    """What the log tells, but for its words."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        self.seams: list[SeamSeen] = []
        self.targets: list[str] = []  # of attempts that were shown
        self.closed: Closed | None = None
        self.usage: UsageReported | None = None
        self.answered_as = ""
        self.dropped: tuple[str, ...] = ()
        self.finish = Finish()
        self.shown = False

    def add(self, seq: int, event: AnyEvent) -> None:
        """Take the next entry."""
        match event:
            case Started():
                self.answered_as, self.dropped = event.model, event.dropped
                self.targets.append(event.target)
            case Seam():
                self.targets += [event.target] if event.target else []
                self.seams.append(SeamSeen(seq, event.mode, event.target, event.code))
            case UsageReported():
                self.usage = event
            case Finished():
                self.finish = Finish(event.reason, event.raw)
            case Closed():
                self.closed = event
        self.shown = self.shown or has_output(event)


async def _costs(ctx: Context, stream: Stream) -> dict[int, int | None]:
    """Return what the ledger has; nothing while it cannot be asked: the rest is worth telling."""
    try:
        return await ctx.books.costs_of(stream.id) if ctx.books is not None else {}
    except PenstockError:
        return {}


def _attempts(
    closed: Closed | None, account: Account | None, costs: dict[int, int | None], told: Told
) -> tuple[AttemptSeen, ...]:
    open_: frozenset[int] = frozenset()
    reports: tuple[AttemptReport, ...] = ()
    if closed is not None:
        reports = closed.history or _only(closed) or _left(told, closed.code)
    elif account is not None:
        reports, open_ = account.attempts, account.open
    seen = []
    for number, report in enumerate(reports, 1):
        cost = costs.get(number)
        seen.append(
            AttemptSeen(
                number,
                report.target,
                reason=report.reason or ("first" if number == 1 else ""),
                code=report.code,
                open=number in open_,
                timed=report.ended_ms > 0,
                began_ms=report.began_ms,
                ended_ms=report.ended_ms,
                connect_ms=report.connect_ms,
                wait_ms=report.wait_ms,
                usage=report.usage,
                cost_usd=None if cost is None else cost / USD,
            )
        )
    return tuple(seen)


def _only(closed: Closed) -> tuple[AttemptReport, ...]:
    """Return the report of a stream's one attempt, of which its end tells no history."""
    if not closed.attempts or not closed.target:
        return ()
    timing = closed.timing or Timing()
    began = timing.queue_ms
    spans: dict[str, Any] = {}
    if timing.first_output_ms:
        spans = {"connect_ms": timing.connect_ms, "wait_ms": timing.wait_ms}
        began = timing.first_output_ms - timing.connect_ms - timing.wait_ms
    code = "" if closed.status == "completed" else closed.code
    whole = timing.queue_ms or timing.failed_ms or timing.stream_ms or timing.first_output_ms
    return (
        AttemptReport(
            closed.target,
            code,
            began_ms=began if whole else 0.0,
            ended_ms=timing.total_ms if whole else 0.0,
            usage=closed.usage,
            reason="first",
            **spans,
        ),
    )


def _left(told: Told, code: str) -> tuple[AttemptReport, ...]:
    """Return what the log says of the attempts of a process that was killed: whom they asked, no more."""
    codes = [*(seam.code for seam in told.seams if seam.target), code]
    shown = zip(filter(None, told.targets), codes, strict=False)
    return tuple(AttemptReport(target, broken) for target, broken in shown)


def _ending(closed: Closed, told: Told, at: float | None) -> Ending:
    return Ending(
        closed.status,
        told.shown,
        code=closed.code,
        message=closed.message,
        fault=closed.fault,
        retryable=closed.retryable,
        http_status=closed.http_status,
        finish_reason=told.finish.reason,
        finish_detail=told.finish.detail,
        at=None if at is None else round(at, 3),
    )
