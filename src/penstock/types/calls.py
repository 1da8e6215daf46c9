"""A call: one accepted request, as policies and the gateway see it. No HTTP in here."""

from typing import Literal, TypeAlias

import msgspec

from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest

OnDisconnect: TypeAlias = Literal["continue", "cancel"] | float
"""What a lost reader means: go on, stop, or stop after so many seconds without one."""


class Call(msgspec.Struct, frozen=True):
    """One accepted request with its principal.

    ``route`` names where it came in, ``body_sha256`` is of the request as it came, and
    ``idempotency_key`` is empty when the client gave none. ``ttl`` is in seconds. ``join``: an equal
    call that is running and wanted it too may answer this one; None for as the model's setting says.
    """

    principal: Principal
    route: str
    request: GenerationRequest
    request_id: str = ""
    body_sha256: str = ""
    idempotency_key: str = ""
    on_disconnect: OnDisconnect = "continue"
    ttl: float | None = None
    join: bool | None = None
    metadata: dict[str, str] | None = None
