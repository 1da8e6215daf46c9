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

__all__ = [
    "Answer",
    "AsyncClient",
    "Back",
    "BlockingAnswer",
    "Client",
    "Draft",
    "Ended",
    "Entry",
    "Failed",
    "Link",
    "Listed",
    "Live",
    "Lost",
    "Model",
    "NotCompleted",
    "NotWhole",
    "Refused",
    "Token",
    "Unreachable",
]
