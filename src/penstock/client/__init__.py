"""A client of a gateway, for programs: `AsyncClient`, and `Client` without ``await``."""

from penstock.client.answers import (
    Answer,
    AsyncClient,
    Entry,
    Link,
    Listed,
    NotCompleted,
    NotWhole,
)
from penstock.client.blocking import BlockingAnswer, Client
from penstock.client.connection import Back, Ended, Failed, Lost, Model, Refused, Unreachable
from penstock.client.credentials import Token
from penstock.client.live import Draft, Live
from penstock.types.events import (
    Annotation,
    AnyEvent,
    Closed,
    Finished,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)

__all__ = [
    "Annotation",
    "Answer",
    "AnyEvent",
    "AsyncClient",
    "Back",
    "BlockingAnswer",
    "Client",
    "Closed",
    "Draft",
    "Ended",
    "Entry",
    "Failed",
    "Finished",
    "Link",
    "Listed",
    "Live",
    "Lost",
    "Model",
    "NotCompleted",
    "NotWhole",
    "Opaque",
    "ReasoningDelta",
    "RefusalDelta",
    "Refused",
    "Seam",
    "Started",
    "TextDelta",
    "Token",
    "ToolCallDelta",
    "Unreachable",
    "UsageReported",
]
