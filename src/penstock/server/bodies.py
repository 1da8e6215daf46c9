"""A request's body as it comes: how large it may be, and how slow.

A body may fall behind a slow uplink's rate by so many seconds, and no more: a large one has the time that it
needs, and one that comes byte by byte, or stops, is refused soon. Only waiting for the client counts.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from starlette.requests import Request

from penstock.types.errors import ClientError


class Pace(Protocol):
    """How slow a body may be: ``body_timeout`` seconds behind ``body_rate`` bytes a second; a rate of 0: so
    many seconds in all."""

    @property
    def body_timeout(self) -> float:
        """Seconds."""
        ...

    @property
    def body_rate(self) -> int:
        """Bytes a second."""
        ...


async def arriving(request: Request, most: int, pace: Pace) -> AsyncIterator[bytes]:
    """Yield the pieces of a body of at most ``most`` bytes. Raises `ClientError` 413 `body_too_large`, 408
    `body_timeout`; `ClientDisconnect` when the client leaves."""
    too_large = ClientError(
        f"The request body is larger than {most} bytes.", code="body_too_large", status=413
    )
    if int(request.headers.get("content-length", "0") or 0) > most:
        raise too_large
    now = asyncio.get_running_loop().time
    pieces = aiter(request.stream())
    left, size = pace.body_timeout, 0
    while True:
        began = now()
        try:
            async with asyncio.timeout(left):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ClientError("The request body took too long.", code="body_timeout", status=408) from None
        size += len(piece)
        if size > most:
            raise too_large
        left -= now() - began
        if pace.body_rate:
            left = min(pace.body_timeout, left + len(piece) / pace.body_rate)
        if piece:
            yield piece
