"""What the gateway needs of a provider, and the values that pass between them.

A provider turns a request into a `Conversation`: a *source* that pushes bytes (or, for the embedded
model, events) and a *decoder* that makes events of them. The source calls its `Sink` from the event
loop, and nothing between a socket's read and the log waits.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from penstock.types.errors import PenstockError
from penstock.types.events import AnyEvent
from penstock.types.requests import GenerationRequest
from penstock.types.timers import Timers

CONTINUE_PROMPT: Final = (
    "Your answer was cut off by a lost connection. Go on exactly where it stopped: the next characters you "
    "write are appended to it. Repeat nothing, apologise for nothing, and do not mention this."
)
"""What a model is asked that cannot be given the beginning of its answer; it stands after that beginning."""


class Sink(Protocol):
    """Where a source delivers. After `end` or `fail` it calls nothing more; nor after an abort."""

    def feed(self, data: Any) -> None:
        """A step: whatever the conversation's decoder takes. Never raises."""
        ...

    def end(self) -> None:
        """The response is whole on the transport's level."""
        ...

    def fail(self, error: PenstockError) -> None:
        """The response will not be whole."""
        ...


class Source(Protocol):
    """One attempt's connection to a provider."""

    def limit(self, connect: float | None, head: float | None) -> None:
        """Before `open`: seconds until the connection is there, and until the head of the response; 0 for
        no limit, None for the provider's own."""
        ...

    async def open(self, sink: Sink) -> None:
        """Connect and send the request; return when it is sent. Raises `UpstreamError`."""
        ...

    def pause(self) -> None:
        """Stop delivering; what the provider sends waits in the socket."""
        ...

    def resume(self) -> None:
        """Deliver again."""
        ...

    def abort(self) -> None:
        """Close the connection now, before returning. Idempotent; also after the end."""
        ...


class Decoder(Protocol):
    """Makes events of what the source delivers (`penstock.wire.dialect.EventDecoder`, mostly)."""

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: nothing that may still arrive matters."""
        ...

    def feed(self, data: Any) -> Sequence[AnyEvent]:
        """Return the events that ``data`` completes. Raises `UpstreamError`."""
        ...

    def flush(self) -> Sequence[AnyEvent]:
        """The response ended; raises `UpstreamError` when the answer was not whole."""
        ...


class Credential(Protocol):
    """The key that one request carries (`penstock.providers.keys.KeyUse`)."""

    def worked(self) -> None:
        """The provider answers."""
        ...

    def failed(self, error: PenstockError) -> bool:
        """Say whether ``error`` was the key's, and another one is ready."""
        ...


class Conversation(NamedTuple):
    """One request to one target, not sent yet. ``dropped`` is what of the request the target is not told,
    since it has no place for it."""

    source: Source
    decoder: Decoder
    dropped: tuple[str, ...] = ()

    @property
    def key(self) -> Credential | None:
        """The key that it carries, where its provider has a say in which."""
        key: Credential | None = getattr(self.source, "key", None)
        return key

    def add_header(self, name: str, value: str) -> None:
        """Before it is opened: send one more header, if it is reached by HTTP at all."""
        if (add := getattr(self.source, "add_header", None)) is not None:
            add(name, value)

    @property
    def conceal(self) -> Callable[[str], str] | None:
        """What takes our secrets out of the provider's words, where it was sent some."""
        conceal: Callable[[str], str] | None = getattr(self.source, "conceal", None)
        return conceal


class Target(msgspec.Struct, frozen=True):
    """One model of one provider that a request can be sent to: what a model name routes to.

    ``context`` is how many tokens it takes, 0 if that is not known; ``weight`` its share where calls are
    spread; ``tries`` how often a call may try it, 0 for as usual; ``continuation`` how it goes on from a
    text that the reader already has. ``thinking`` are its timers while it thinks, where those are others.
    """

    name: str
    provider: str
    model: str
    context: int = 0
    weight: float = 1.0
    tries: int = 0
    continuation: Literal["prefill", "prompt", "restart", "none"] = "prompt"
    timers: Timers = Timers()
    thinking: Timers | None = None


class Model(msgspec.Struct, frozen=True):
    """One model that a provider offers: a name, the other names it answers to, a line for people, and
    when it was made, in Unix seconds (0: not known)."""

    name: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    created: int = 0


class Provider(Protocol):
    """Somebody who runs models."""

    @property
    def name(self) -> str:
        """The provider's name in the configuration."""
        ...

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for the provider's ``model``. No I/O. Raises `ClientError` if it cannot."""
        ...

    async def models(self) -> Sequence[Model]:
        """Return the models it offers. Raises `UpstreamError`."""
        ...

    async def aclose(self) -> None:
        """Close idle connections."""
        ...
