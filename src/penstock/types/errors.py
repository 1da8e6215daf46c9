"""Errors: what went wrong, whose fault it was, and what whoever must act can do.

    PenstockError                code, message, status, param, retryable, retry_after
    ├── ClientError              fault client: the request cannot be served as it is
    │   └── StreamGone           what is asked for was there once
    ├── GatewayError             fault gateway: we cannot serve it now
    │   ├── StorageError         a commit or a read of the log failed
    │   └── LogDamaged           what is stored cannot be read, now or later
    └── UpstreamError            fault upstream: the provider, or the way to it, failed
        └── WireError            what arrived is not what the format allows

``message`` is written for the caller and never quotes an exception. Codes are stable names; they
are listed in docs/protocol.md. ``status`` is the HTTP status that a client should be given.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from penstock.types.events import Fault


class PenstockError(Exception):
    """Base of all errors that may be shown to a caller."""

    fault: ClassVar[Fault] = "gateway"
    provider_code: str = ""
    """The provider's own word for it, where ours is another."""
    headers: Mapping[str, str] = MappingProxyType({})
    """What a response that says this error says besides; only the server knows which names there are."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 500,
        param: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        type: str = "",
    ) -> None:
        """``retry_after`` is in seconds; ``type`` is an upstream's own error type, if it gave one."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.param = param
        self.retryable = retryable
        self.retry_after = retry_after
        self.type = type

    def __repr__(self) -> str:
        """Show class, code and status: enough for a log line, nothing that a caller sent."""
        return f"{self.__class__.__name__}({self.code}, {self.status})"


class ClientError(PenstockError):
    """The request is at fault; sending it again unchanged will fail again."""

    fault = "client"

    def __init__(
        self, message: str, *, code: str = "invalid_request", status: int = 400, param: str | None = None
    ) -> None:
        """``param`` names the offending field of the request."""
        super().__init__(message, code=code, status=status, param=param)


class StreamGone(ClientError):
    """A stream that was there: it was deleted, or its retention ran out, maybe while it was read."""

    def __init__(self) -> None:
        """Always 410 `stream_gone`."""
        super().__init__("The stream is gone.", code="stream_gone", status=410)


class GatewayError(PenstockError):
    """The gateway cannot do it, now or at all."""

    fault = "gateway"


class StorageError(GatewayError):
    """The log cannot be written or read."""

    def __init__(
        self, message: str = "The gateway cannot store streams at the moment. Try again shortly."
    ) -> None:
        """Always 503 `storage_unavailable`, worth another try."""
        super().__init__(message, code="storage_unavailable", status=503, retryable=True, retry_after=5)


class LogDamaged(GatewayError):
    """What is stored of a stream is not what was stored; it will not get better by itself."""

    def __init__(self) -> None:
        """Always 500 `log_damaged`."""
        super().__init__("A part of this stream's log is damaged and cannot be read.", code="log_damaged")


class UpstreamError(PenstockError):
    """The provider refused, failed, or could not be reached.

    ``upstream_status`` is the provider's HTTP status, 0 when there was none.
    """

    fault = "upstream"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 502,
        param: str | None = None,
        retryable: bool = True,
        retry_after: float | None = None,
        type: str = "",
        upstream_status: int = 0,
        provider_code: str = "",
    ) -> None:
        """See `PenstockError`."""
        super().__init__(
            message,
            code=code,
            status=status,
            param=param,
            retryable=retryable,
            retry_after=retry_after,
            type=type,
        )
        self.upstream_status = upstream_status
        self.provider_code = provider_code if provider_code != code else ""


class WireError(UpstreamError):
    """Bytes that break the format they claim to be in, or one of its limits."""

    def __init__(self, message: str, *, code: str = "upstream_malformed") -> None:
        """Always a 502: the provider sent something that cannot be read."""
        super().__init__(message, code=code, status=502)


def connect_failed(origin: str) -> UpstreamError:
    """No connection could be opened."""
    return UpstreamError(f"Could not connect to {origin}.", code="upstream_unreachable")


def connect_timeout(origin: str) -> UpstreamError:
    """Opening a connection took too long."""
    return UpstreamError(
        f"Connecting to {origin} took too long.", code="upstream_connect_timeout", status=504
    )


def head_timeout(origin: str) -> UpstreamError:
    """No response head came in time."""
    return UpstreamError(f"{origin} did not answer in time.", code="upstream_timeout", status=504)


def upstream_reset(origin: str) -> UpstreamError:
    """The connection was lost before the response was whole."""
    return UpstreamError(f"{origin} closed the connection in mid-answer.", code="upstream_reset")


def upstream_truncated() -> UpstreamError:
    """The response ended without saying that the answer is complete."""
    return UpstreamError("The provider's answer ended before it was complete.", code="upstream_truncated")


CANCELLED: Final = "cancelled"
INTERRUPTED: Final = "gateway_restarted"
