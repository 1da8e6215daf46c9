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
from penstock.client.connection import Back, Ended, Lost, Model, Refused, Unreachable

__all__ = [
    "Answer",
    "AsyncClient",
    "Back",
    "BlockingAnswer",
    "Client",
    "Ended",
    "Entry",
    "Link",
    "Listed",
    "Lost",
    "Model",
    "NotCompleted",
    "NotWhole",
    "Refused",
    "Unreachable",
]
