"""Our WebSocket protocol: uvicorn's, with the bounds and the short ways that streams need.

The handshake is uvicorn's and ASGI's; after it, a `Handler` may `adopt` the connection: then messages
are handed to it in the call that read them, and `push` writes frames in the call that made them: no
await, no queue, no ASGI message. Bounds: a message's size (of fragments, their sum is kept and not the
pieces), what waits to be sent (a peer that does not read is not read from either), how long a close may
take. The protocol's rules are those of the `websockets` library. The app finds the connection in the
scope's extensions under `EXTENSION`; under another ASGI server there is none.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from penstock.server.addresses import Places
from penstock.server.http import HttpSettings, Latch, places_of

EXTENSION: Final = "penstock.websocket"

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that a peer gets to answer a close, and to take what was sent before it."""

MAX_UNSENT: Final = 256 << 10
"""Bytes of answers that may wait for a peer that does not read, before it is not read from either."""

TOO_MANY: Final = "This gateway has as many WebSockets as it may. Try again shortly.\n"


class Handler(Protocol):
    """Who gets what comes on an adopted connection. Nothing here may wait."""

    def received(self, data: bytes, text: bool) -> None:
        """A whole message; text is UTF-8."""
        ...

    def writable(self) -> None:
        """The peer takes more again."""
        ...

    def lost(self) -> None:
        """The connection is no more."""
        ...

    def leave(self) -> None:
        """The server is about to stop: close when what runs is done."""
        ...


class Inbox:
    """An `asyncio.Queue`'s face for one waiter; with its events and deques that takes 3 KB a connection."""

    __slots__ = ("_items", "_some")

    def __init__(self) -> None:
        """Empty."""
        self._items: deque[Any] | None = None
        self._some = Latch()

    def put_nowait(self, item: Any) -> None:
        """Add ``item``."""
        if self._items is None:
            self._items = deque()
        self._items.append(item)
        self._some.set()

    async def get(self) -> Any:
        """Return the first one, once there is one."""
        while not self._items:
            self._some.clear()
            await self._some.wait()
        return self.get_nowait()

    def get_nowait(self) -> Any:
        """Return the first one, of which there must be one."""
        assert self._items is not None
        item = self._items.popleft()
        if not self._items:
            self._items = None
        return item

    def empty(self) -> bool:
        """Say whether there is none."""
        return not self._items


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """See the module's head. `websocket_class` adds ``settings``, ``places`` and ``everyone``."""

    __slots__ = ("_abort_timer", "_handler", "_message", "_paused", "_place")

    settings: HttpSettings
    places: Places
    everyone: set["WebSocketProtocol"]
    """The connections of this server."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Called by the HTTP protocol for each request that wants to become a WebSocket."""
        super().__init__(config, server_state, app_state, _loop)
        self.queue = Inbox()  # type: ignore[assignment]
        self.writable = Latch(is_set=True)  # type: ignore[assignment]
        self._abort_timer: asyncio.TimerHandle | None = None
        self._handler: Handler | None = None
        self._message = bytearray()
        self._paused = False
        self._place = ""

    # --- for the handler ---------------------------------------------------------------------------

    def adopt(self, handler: Handler) -> None:
        """Hand what comes to ``handler`` from now on. The handshake must be over."""
        self._handler = handler
        # Nobody needs the request any more: an idle connection need not keep its head.
        del self.request, self.response
        self.scope["headers"] = []
        self.scope["extensions"] = {}
        self._resume_reading()
        while not self.queue.empty():  # what came between the handshake and now
            event: Any = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                handler.received(event["bytes"] if text is None else text.encode(), text is not None)
            elif event["type"] == "websocket.disconnect":
                handler.lost()

    @property
    def open(self) -> bool:
        """Whether anything can be sent."""
        return self.conn.state is State.OPEN and not self.transport.is_closing()

    @property
    def paused(self) -> bool:
        """Whether the peer takes less than is sent."""
        return self._paused

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer in this process."""
        return self.transport.get_write_buffer_size()

    def set_max_message(self, size: int) -> None:
        """Take messages of up to ``size`` bytes from now on."""
        self.conn.max_message_size = size

    def push(self, texts: Iterable[bytes]) -> None:
        """Send text messages now; for nobody if the connection is closing."""
        if self.open:
            self.transport.write(b"".join([part for text in texts for part in (header(len(text)), text)]))

    def push_binary(self, data: bytes) -> None:
        """Send a binary message now."""
        if self.open:
            self.transport.write(header(len(data), 0x82) + data)

    def close(self, number: int, reason: str = "", patience: float = CLOSE_TIMEOUT) -> None:
        """Send a close after what was sent; the connection ends when it is answered, or not in time."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self.stop_keepalive()
        self.conn.send_close(number, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._resume_reading()
        self._abort_timer = self.loop.call_later(patience, self.transport.abort)

    def abort(self) -> None:
        """End the connection at once; what was not sent is dropped."""
        self.transport.abort()

    # --- from the transport --------------------------------------------------------------------------

    async def run_asgi(self) -> None:
        """Serve. A refusal by a whole HTTP response is an end, too, of which uvicorn would log an error."""
        app = self.app

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)
            if self.initial_response is not None:
                self.handshake_complete = True

        self.app = serve
        await super().run_asgi()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place of the connection that became this one."""
        self._place = self.places.whose(transport.get_extra_info("peername"))
        self.places.take(self._place)
        super().connection_made(transport)

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake, unless there are too many."""
        if len(self.everyone) >= self.settings.max_websockets:
            self.handshake_complete = self.close_sent = True
            self.conn.send_response(self.conn.reject(503, TOO_MANY))
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        self.everyone.add(self)
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler."""
        super().connection_lost(exc)
        self.everyone.discard(self)
        place, self._place = self._place, ""
        self.places.give_back(place)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.lost()

    def data_received(self, data: bytes) -> None:
        """Take what came. A peer that asks and does not read the answers is not listened to meanwhile."""
        super().data_received(data)
        if self._handler is not None and not self.read_paused and self._paused and self.unsent > MAX_UNSENT:
            self.read_paused = True
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        """The peer is slow."""
        super().pause_writing()
        self._paused = True

    def resume_writing(self) -> None:
        """The peer takes more."""
        super().resume_writing()
        self._paused = False
        if self._handler is not None:
            self._resume_reading()
            self._handler.writable()

    def keepalive_timeout(self) -> None:
        """No pong came; where our ping still waits behind other bytes, that says nothing."""
        if self.unsent:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    def shutdown(self) -> None:
        """The server stops: the handler says when."""
        if self._handler is not None:
            self._handler.leave()
        else:
            super().shutdown()

    # --- messages --------------------------------------------------------------------------------------

    def handle_text(self, event: Frame) -> None:
        """Begin a text message, or take a whole one."""
        self.curr_msg_data_type = "text"
        self._first(event)

    def handle_bytes(self, event: Frame) -> None:
        """Begin a binary message, or take a whole one."""
        self.curr_msg_data_type = "bytes"
        self._first(event)

    def _first(self, event: Frame) -> None:
        if event.fin:
            self._whole(bytes(event.data))
        else:
            self._message += event.data

    def handle_cont(self, event: Frame) -> None:
        """Take the next piece of a message."""
        self._message += event.data
        if event.fin:
            data, self._message = bytes(self._message), bytearray()
            self._whole(data)

    def _whole(self, data: bytes) -> None:
        if self._handler is None:
            self.frames = [data]
            self.send_receive_event_to_app()
            return
        if self.close_sent:
            return
        text = self.curr_msg_data_type == "text"
        if text and not _is_utf8(data):
            self.close(1007)
            return
        self._handler.received(data, text)

    def handle_close(self, event: Frame) -> None:
        """Answer a close; where it answers ours, the connection ends."""
        super().handle_close(event)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
            self.transport.close()

    def _resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


def header(size: int, first: int = 0x81) -> bytes:
    """Return the head of a server's whole, unmasked message of ``size`` bytes (RFC 6455, section 5.2).

    The library's own way takes 2 to 5 µs a message, this 0.2; what it makes is read back in a test.
    """
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def websocket_class(settings: HttpSettings, places: Places | None = None) -> type[WebSocketProtocol]:
    """As `penstock.server.http.protocol_class`."""
    shared = places or places_of(settings)
    members = {"settings": settings, "everyone": set(), "places": shared, "__slots__": ()}
    return type("ConfiguredWebSocketProtocol", (WebSocketProtocol,), members)
