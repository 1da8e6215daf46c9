"""``POST /v1/admin/profile``: what the running process spends its time with, as a flame graph.

One recording at a time, of a minute at most, for administrators; it ends when its client leaves. The
recorder itself is the assembly's, since it is an optional part.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.server.downstream import ClientGone, Present, downstream
from penstock.server.exchanges import current_request_id
from penstock.types.errors import ClientError, GatewayError

log = structlog.get_logger(__name__)

MAX_SECONDS: Final = 60.0
DEFAULT_SECONDS: Final = 10.0

FORMS: Final = {"html": "text/html; charset=utf-8", "speedscope": "application/json"}


class Recording(Protocol):
    """A recording of the thread that starts it (`penstock.telemetry.profiler.Recording`)."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End. Idempotent."""
        ...

    def render(self, form: str) -> bytes:
        """Return what was recorded, in one of `FORMS`."""
        ...


Recorder: TypeAlias = Callable[[float], Recording]
"""Makes a recording of so many seconds. Raises `ImportError` where the optional part is not installed."""


class ProfilerDesk:
    """Who records now: at most one."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        """Without ``recorder`` there is no profiling."""
        self._recorder = recorder
        self._busy = False

    def take(self) -> None:
        """Begin to record, for nobody else. Raises `ClientError` 409 `profile_running`."""
        if self._busy:
            message = "A profile is being recorded: wait for its end."
            raise ClientError(message, code="profile_running", status=409)
        self._busy = True

    def leave(self) -> None:
        """Let others record."""
        self._busy = False

    async def recording(self, seconds: float) -> Recording:
        """Return a recording. Raises `GatewayError` 501 `profiler_missing`."""
        try:
            if self._recorder is None:
                raise ImportError
            return await asyncio.to_thread(self._recorder, seconds)  # it is loaded the first time
        except ImportError:
            message = "The gateway has no profiler: install it with pip install 'penstock[profile]'."
            raise GatewayError(message, code="profiler_missing", status=501) from None


class Profile:
    """A response that records, then shows what was recorded."""

    def __init__(self, desk: ProfilerDesk, seconds: float, form: str, timeout: float) -> None:
        """``form`` is one of `FORMS`; ``timeout``: seconds a client may take nothing."""
        self._desk = desk
        self._seconds = seconds
        self._form = form
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record for as long as the client is there. Raises `ClientError`, `GatewayError`."""
        self._desk.take()
        try:
            recording = await self._desk.recording(self._seconds)
            log.info("profile_begins", request_id=current_request_id(), seconds=self._seconds)
            try:
                async with Present(downstream(scope, receive, send, self._timeout)):
                    recording.start()
                    await asyncio.sleep(self._seconds)
            except ClientGone:
                return
            finally:
                recording.stop()
            body = await asyncio.to_thread(recording.render, self._form)
        finally:
            self._desk.leave()
        headers = {
            "cache-control": "no-store",
            "x-request-id": current_request_id(),
            # A page of ours with scripts of others: it may do nothing but show itself.
            "content-security-policy": "sandbox allow-scripts; default-src 'unsafe-inline' data: blob:",
            "x-content-type-options": "nosniff",
        }
        await Response(body, 200, headers, FORMS[self._form])(scope, receive, send)
