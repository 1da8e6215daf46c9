"""A call: one accepted request, as policies and the gateway see it. No HTTP in here."""

import re
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.types.errors import ClientError
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest

AtRest: TypeAlias = Literal["none", "memory", "process", "host"]
"""What is kept of a stream: nothing once it has ended, or in RAM only; on disk, so that it survives a
killed process, or a power failure too."""

OnDisconnect: TypeAlias = Literal["continue", "cancel"] | float
"""What a lost reader means: go on, stop, or stop after so many seconds without one."""

MAX_GRACE: Final = 86_400.0
_GRACE: Final = re.compile(r"grace:([0-9]{1,9}(?:\.[0-9]{1,9})?)")


def on_disconnect(text: str | None, *defaults: OnDisconnect | None) -> OnDisconnect:
    """Read ``continue``, ``cancel`` or ``grace:<seconds>``; without, the first default that is one.

    Raises `ClientError`.
    """
    match text:
        case None | "":
            return next(default for default in defaults if default is not None)
        case "continue" | "cancel":
            return text
    if (found := _GRACE.fullmatch(text)) and float(found[1]) <= MAX_GRACE:
        return float(found[1])
    raise ClientError(
        f"on_disconnect is 'continue', 'cancel' or 'grace:<seconds>' (at most {MAX_GRACE:.0f}).",
        code="invalid_value",
        param="on_disconnect",
    )


class Call(msgspec.Struct, frozen=True):
    """One accepted request with its principal.

    ``route`` names where it came in, ``body_sha256`` is of the request as it came, and
    ``idempotency_key`` is empty when the client gave none. ``ttl`` is in seconds. ``join``: an equal
    call that is running and wanted it too may answer this one; None for as the model's setting says.
    ``at_rest`` is empty for as the store does by itself. ``preset`` names what made the request;
    ``input_tokens`` is an estimate of it, and ``stream`` what it is answered with, which the gateway makes;
    empty for what is no generation. ``trace`` is the W3C `traceparent` that came with it.
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
    at_rest: AtRest | Literal[""] = ""
    preset: str = ""
    input_tokens: int = 0
    trace: str = ""
    metadata: dict[str, str] | None = None
    stream: str = ""

    @property
    def ids(self) -> dict[str, str]:
        """What each line of the log that is about this call names."""
        return ids(self.request_id, self.stream)


def ids(request_id: str, stream: str) -> dict[str, str]:
    """Return what a line of the log says of whom it is about; nothing of what there is none of."""
    said = {"request_id": request_id, "stream": stream}
    return {name: value for name, value in said.items() if value}
