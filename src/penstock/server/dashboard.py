"""The dashboard: its page at ``/dashboard``, and the feed that it is drawn from.

The page is files, as the chat page's, and tells nobody anything. What it shows comes by routes that are for
administrators; where no key exists, for whoever is on this machine.
"""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.server import ui
from penstock.server.context import Context, context
from penstock.server.downstream import ClientGone, Downstream, Present, downstream
from penstock.server.exchanges import current_request_id
from penstock.server.feed import MAX_WATCHERS, SPEND_OF, Feed
from penstock.server.responses import DEFERRED
from penstock.server.roster import Wanted, wanted
from penstock.types.errors import ClientError, GatewayError, PenstockError
from penstock.types.usage import Question

INDEX: Final = "dashboard.html"

ASK_AGAIN: Final = 30.0
"""Seconds after which a watcher's credential is looked at again: a key that was ended watches no more."""


async def page(request: Request) -> Response:
    """``GET /dashboard``: the page, without a figure in it."""
    _feed(context(request))
    return ui.serve(request, context(request).pages[INDEX], policy=ui.POLICY)


async def activity(request: Request) -> "Watching":
    """``GET /v1/admin/activity``: what goes on, a frame a second, from a cursor on, then live. ``q=`` and
    ``sort=`` choose the streams that have rows."""
    ctx = context(request)
    ctx.admit_operator(request)
    feed = _feed(ctx)
    if feed.watchers >= MAX_WATCHERS:
        message = "As many watch as may. Close another dashboard."
        raise GatewayError(message, code="overloaded", status=503, retryable=True, retry_after=10)
    query = request.query_params
    asked = wanted(query.get("q", ""), query.get("sort", "") or "age")
    cursor = request.headers.get("last-event-id", "") or query.get("after", "")
    return Watching(ctx, request, feed, cursor, asked)


def _feed(ctx: Context) -> Feed:
    if ctx.feed is None:
        message = "This gateway has no dashboard: it is switched off in the configuration."
        raise ClientError(message, code="not_found", status=404)
    return ctx.feed


class Watching:
    """A response that follows the feed until its reader leaves, or may watch no more."""

    def __init__(self, ctx: Context, request: Request, feed: Feed, cursor: str, asked: Wanted) -> None:
        """``cursor`` is what the reader has, empty for nothing; ``asked`` are the streams it wants to see."""
        self._ctx = ctx
        self._request = request
        self._feed = feed
        self._cursor = cursor
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave it to `serve`."""
        scope[DEFERRED] = (self, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is, then frame by frame."""
        down = downstream(scope, receive, send, self._ctx.settings.send_timeout)
        self._feed.watch()
        try:
            async with Present(down):
                await down.start(200, _headers())
                await self._follow(down)
                await down.end()
        except ClientGone:
            pass
        finally:
            self._feed.unwatch()

    async def _follow(self, down: Downstream) -> None:
        feed, clock = self._feed, self._feed.activity.clock
        opening, number = feed.opening(self._cursor)
        await down.write(b"retry: 1000\n" + opening if opening else b":\n")
        looked = clock()
        while not feed.over:
            await asyncio.sleep(feed.due_in)
            if clock() - looked >= ASK_AGAIN:
                looked = clock()
                if not await self._may_still():
                    return
            if feed.spend_is_due():
                await self._ask_ledger()
            feed.make()
            if not feed.holds(number):  # it took too little for too long
                opening, number = feed.opening(feed.cursor(number))
                await down.write(opening)
            for frame in feed.after(number):
                await down.write(feed.event(frame, self._asked))
                number = frame.number

    async def _may_still(self) -> bool:
        try:
            await self._ctx.identify(self._request.scope)
            self._ctx.admit_operator(self._request)
        except PenstockError:
            return False
        return True

    async def _ask_ledger(self) -> None:
        books = self._ctx.books
        if books is None:
            return
        since = self._ctx.wall() - SPEND_OF
        try:
            by_key = await books.summarize(Question("principal", since=since))
            by_model = await books.summarize(Question("model", since=since))
        except PenstockError:  # it is asked again
            return
        self._feed.spent(by_key, by_model)


def _headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"x-request-id", current_request_id().encode()),
        (b"cache-control", b"no-store, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"x-content-type-options", b"nosniff"),
    ]
