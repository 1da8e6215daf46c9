"""After a start: streams that the last writer left open are closed, so that no reader waits for ever."""

from collections.abc import Sequence

import structlog

from penstock.streams.store import Journal, StreamInfo
from penstock.streams.stream import Stream
from penstock.types.events import Closed

log = structlog.get_logger(__name__)

MESSAGE = "The gateway was restarted before this answer was complete."


async def close_orphans(orphans: Sequence[StreamInfo], journal: Journal) -> None:
    """Close each of ``orphans`` as `interrupted`, with digests over what is there."""
    for info in orphans:
        stream = Stream(info, journal)
        stream.attach(await journal.reopen(info, stream.committed_to))
        after = 0
        while records := await journal.read(info.id, after, 256):
            stream.replay(records)
            after = records[-1].seq
        stream.close(
            Closed("interrupted", code="gateway_restarted", message=MESSAGE, fault="gateway", retryable=True)
        )
        await stream.wait_closed()
    if orphans:
        log.warning("orphans_closed", count=len(orphans))
