"""``GET /v1/ws``: many generations on one WebSocket. Format: docs/protocol.md, section 11.

A session is what one socket says and is told. Messages are acted on in the call that brings them; what
must wait (a create, a read, a cancel) has a task of its own in the session's group, one a rid, which is
then the reader. No task and no timer a token, no queue a reader: entries go from the commit to the
socket (`penstock.server.channels`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from penstock.server import callers
from penstock.server.callers import Caller
from penstock.server.channels import MAX_KEPT, Channel, Lane, known_rid
from penstock.server.context import Context, sha256
from penstock.server.downstream import ClientGone
from penstock.server.errors import told
from penstock.server.exchanges import current_request_id
from penstock.server.formats import ENVELOPE, by_query
from penstock.server.generations import NativeCreate, native_call
from penstock.server.guard import SUBPROTOCOLS
from penstock.server.reads import Given, at_end, resolve
from penstock.server.renderings import Format, in_envelopes
from penstock.server.responses import Reader
from penstock.server.sockets import Plain, Socket, direct, refuse
from penstock.streams.stream import Stream
from penstock.types.calls import Call
from penstock.types.errors import ClientError, GatewayError, PenstockError, StorageError
from penstock.types.positions import START, Cursor, Position, parse_cursor, stream_of
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest, Message
from penstock.wire import envelope
from penstock.wire.dialect import Answer
from penstock.wire.envelope import SUBPROTOCOL, ClientMessage, ServerMessage

log = structlog.get_logger(__name__)

RETRY_MS: Final = 1000
"""How soon a client may come back to a gateway that leaves."""

MAX_ASKS: Final = 64
"""Cancels of one socket that may be under way."""

MAX_EARLY: Final = 64
"""Messages that may come while it is found out who sends them."""

MAX_WATCH: Final = 86_400.0
"""Seconds ahead that the end of a token is waited for; one that is later is met by a check."""

LAST_WORD: Final = 1.0
"""Seconds that a client which took nothing gets to hear why it is closed."""

RESTART: Final = 1012
UNSUPPORTED: Final = 1003
UNAUTHORIZED: Final = 4401
FROZEN: Final = 4408
"""Close codes."""


async def connect(ctx: Context, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one socket from its handshake to its end."""
    if (await receive())["type"] != "websocket.connect":
        return
    try:
        caller = Caller(ctx, scope)
        offered = scope.get("subprotocols", [])
        if any(not name.startswith(SUBPROTOCOLS) for name in offered) and SUBPROTOCOL not in offered:
            message = f"This WebSocket speaks the subprotocol {SUBPROTOCOL}."
            raise ClientError(message, code="unknown_subprotocol", param="Sec-WebSocket-Protocol")
    except PenstockError as error:
        await refuse(error, scope, receive, send)
        return
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
    async with asyncio.TaskGroup() as group:
        if (connection := direct(scope)) is not None:
            session = Session(ctx, connection, caller, group)
            connection.adopt(session)
            await session.over
        else:
            plain = Plain(receive, send)
            await plain.carry(Session(ctx, plain, caller, group))


class Session:
    """See the module's head. Made when the handshake is over."""

    __slots__ = (
        "_asks",
        "_caller",
        "_channels",
        "_ctx",
        "_early",
        "_group",
        "_leaving",
        "_rechecking",
        "_request_id",
        "_socket",
        "_timer",
        "over",
    )

    def __init__(self, ctx: Context, socket: Socket, caller: Caller, group: asyncio.TaskGroup) -> None:
        """A caller who is not known yet must say who it is, in time. The tasks are ``group``'s."""
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        self._ctx = ctx
        self._socket = socket
        self._caller = caller
        self._request_id = current_request_id()
        self._group = group
        self._channels: dict[str, Channel] = {}
        self._asks: set[asyncio.Task[None]] = set()
        self._early: list[ClientMessage] | None = None
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None
        self._rechecking: asyncio.TimerHandle | None = None
        if caller.principal is None:
            self._wait_for_auth()
        else:
            self._admitted()

    def __repr__(self) -> str:
        """Say who, and how much goes on."""
        who = self._caller.principal.id if self._caller.principal else "nobody"
        return f"<Session of {who}: {self._busy} of {len(self._channels)} rids busy>"

    @property
    def _busy(self) -> int:
        return sum(channel.busy for channel in self._channels.values())

    # --- from the socket -----------------------------------------------------------------------------

    def received(self, data: bytes, text: bool) -> None:
        """A message came."""
        if not text:
            self._socket.close(UNSUPPORTED, "text messages only")
            return
        try:
            message = envelope.decode_client(data)
        except ClientError as error:
            self._fail(error, rid=envelope.rid_of(data))
            return
        if self._early is not None and type(message) is not envelope.Ping:
            if len(self._early) >= MAX_EARLY:
                self._socket.close(UNAUTHORIZED, "too much before auth")
            else:
                self._early.append(message)
            return
        self._act(message)

    def writable(self) -> None:
        """The client takes more."""
        for channel in self._channels.values():
            channel.wake()

    def lost(self) -> None:
        """The socket is no more: whoever follows by it follows no more."""
        if self.over.done():
            return
        self.over.set_result(None)
        for timer in (self._timer, self._rechecking):
            if timer is not None:
                timer.cancel()
        for channel in self._channels.values():
            self._stop(channel)
        self._channels.clear()
        for ask in self._asks:
            ask.cancel()

    def leave(self) -> None:
        """The server stops: what runs is sent to its end, and nobody waits for more."""
        self._leaving = True
        self._tell(envelope.Goaway(RETRY_MS))
        self._leave_if_idle()

    def _pause(self) -> None:
        """One rid less is busy."""
        self._leave_if_idle()
        if not self._busy and self._caller.principal is None and not self.over.done():
            self._wait_for_auth()

    def _wait_for_auth(self) -> None:
        """Whoever is here must say soon who that is."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._ctx.settings.auth_timeout, self._refuse_late)

    def _leave_if_idle(self) -> None:
        if self._leaving and not self._busy:
            self._socket.close(RESTART, "the gateway restarts")

    # --- what is asked -----------------------------------------------------------------------------------

    def _act(self, message: ClientMessage) -> None:
        if self.over.done() or not self._socket.open:
            return
        rid = getattr(message, "rid", "")
        try:
            match message:
                case envelope.Ping():
                    self._tell(envelope.Pong())
                case envelope.Auth():
                    self._authenticate(message)
                case envelope.Detach():
                    self._stop(known_rid(self._channels.pop(rid, None)))
                    self._pause()
                case envelope.Credit():
                    known_rid(self._channels.get(rid)).grant(message.bytes)
                case envelope.Read() if message.token:
                    self._begin(self._new_channel(rid), self._read, message)
                case _ if self._caller.principal is None:
                    self._refuse(_unknown())
                case envelope.Create():
                    channel = self._new_channel(rid)
                    channel.created = message if len(message.request) <= MAX_KEPT else None
                    self._begin(channel, self._create, message)
                case envelope.Read():
                    self._begin(self._new_channel(rid), self._read, message)
                case envelope.Input():
                    self._input(message)
                case envelope.Cancel():
                    self._cancel(message)
        except PenstockError as error:
            self._fail(error, rid=rid, stream=getattr(message, "stream", ""))

    def _new_channel(self, rid: str) -> Channel:
        """Return a rid that follows nothing; what it followed before is left. Raises `too_many_rids`."""
        if (old := self._channels.pop(rid, None)) is not None:
            self._stop(old)
        elif len(self._channels) >= self._ctx.settings.max_rids:
            idle = next((name for name, channel in self._channels.items() if not channel.busy), None)
            if idle is None:
                message = f"A socket follows up to {self._ctx.settings.max_rids} generations: open another."
                raise ClientError(message, code="too_many_rids", status=429, param="rid")
            del self._channels[idle]
        channel = self._channels[rid] = Channel(rid)
        return channel

    def _begin(self, channel: Channel, act: Callable[..., Awaitable[None]], *given: Any) -> None:
        channel.task = self._group.create_task(self._run(channel, act, *given))
        self._watch()

    def _stop(self, channel: Channel) -> None:
        """Let the channel follow nothing, from this call on."""
        channel.lane = None
        task, channel.task = channel.task, None
        if task is not None and not channel.starting:
            task.cancel()

    async def _run(self, channel: Channel, act: Callable[..., Awaitable[None]], *given: Any) -> None:
        """Do what a rid was asked, and tell it where that cannot be."""
        task = asyncio.current_task()
        try:
            await act(channel, *given)
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001  a defect in one generation must not cost the others
            if channel.task is task:
                self._fail(told(error, current_request_id()), rid=channel.rid)
        if channel.task is task:
            channel.task, channel.cancelled = None, False
            if channel.created is None and self._channels.get(channel.rid) is channel:
                del self._channels[channel.rid]
            self._pause()

    # --- create, read, input ---------------------------------------------------------------------------

    def _call(self, message: envelope.Create) -> Call:
        asked = NativeCreate(
            message.request, message.dialect, message.ttl_s, message.on_disconnect, message.metadata
        )
        return native_call(self._ctx, self._caller.who, asked, key=message.idempotency_key)

    async def _create(self, channel: Channel, message: envelope.Create) -> None:
        await self._check()
        await self._go_on(channel, await self._start(channel, self._call(message)))

    async def _start(self, channel: Channel, call: Call) -> Stream:
        """Start a generation. That is not broken off, since its creation may be stored already: where nobody
        waits for it any more, it is left to its `on_disconnect`. Raises `ClientGone` then."""
        channel.starting = True
        try:
            started = await self._ctx.gateway.start(call)
        finally:
            channel.starting = False
        if channel.task is not asyncio.current_task():
            if not started.existing:
                self._ctx.gateway.leave_alone(started.stream)
            raise ClientGone
        return started.stream

    async def _restart(self, channel: Channel) -> None:
        """The input of a generation was replaced: stop it, and start with the newest."""
        await self._check()
        if channel.stream:
            try:
                await self._ctx.gateway.cancel(channel.stream, self._caller.who)
            except ClientError as gone:
                if gone.status not in (404, 410):
                    raise
        content, channel.next_input = channel.next_input, None
        assert content is not None
        assert channel.created is not None
        call = self._call(channel.created)
        call = msgspec.structs.replace(
            call,
            request=replaced(call.request, content),
            body_sha256=sha256(call.body_sha256.encode(), content.encode("utf-8", "surrogatepass")),
            idempotency_key="",
        )
        await self._go_on(channel, await self._start(channel, call))

    async def _go_on(self, channel: Channel, stream: Stream) -> None:
        """Follow a stream that was started, unless other things were asked meanwhile."""
        channel.stream = stream.id
        if channel.cancelled:
            channel.cancelled = False
            self._ask(self._cancel_stream, stream.id, channel.rid)
        if channel.next_input is not None:
            await self._restart(channel)
        else:
            await self._follow(channel, stream, stream.position(0))

    async def _read(self, channel: Channel, message: envelope.Read) -> None:
        try:
            cursor = parse_cursor(str(message.after))
        except ValueError as error:
            sentence = f"The cursor in after cannot be read: {error}."
            raise ClientError(sentence, code="invalid_cursor", param="after") from None
        stream_id = stream_of(message.stream or cursor.stream)
        if not stream_id:
            raise ClientError("There is no such stream.", code="stream_not_found", status=404)
        if message.token:
            principal = self._ctx.links.admit(message.token, stream_id, "read")
            if self._caller.principal is None and self._timer is not None:  # for as long as it reads
                self._timer.cancel()
                self._timer = None
        else:
            await self._check()
            principal = self._caller.who
        stream = await self._ctx.gateway.find(stream_id, principal)
        format = ENVELOPE
        if message.dialect not in ("", "native"):
            format = in_envelopes(by_query(message.dialect, "", stream.info.metadata))
        position = resolve(stream, Given(cursor, reconnects=True))
        if at_end(stream, position):
            self._tell(envelope.Nothing(channel.rid, stream.id, stream.state))
        else:
            await self._follow(channel, stream, position, principal, format)

    async def _follow(
        self,
        channel: Channel,
        stream: Stream,
        position: Position,
        principal: Principal | None = None,
        format: Format = ENVELOPE,
    ) -> None:
        """Send the stream from ``position`` on, to its end. Raises how that failed, and `ClientGone`."""
        ctx = self._ctx
        who = principal or self._caller.who
        left = ctx.gateway.attach_reader(stream, who)
        channel.stream = stream.id
        channel.credit = envelope.FIRST_CREDIT
        lane = channel.lane = Lane(channel, self._socket, ctx.settings.send_timeout, self._frozen)
        part = position.part if format is not ENVELOPE else 0
        reader = Reader(stream, format, lane, ctx.renderings, position=position.entries, skip=part)
        seat = ctx.audience.enter(stream, who, "websocket", lambda: reader.position)
        try:
            cursor = str(Cursor(stream.id, Position(stream.info.epoch, position.entries, part)))
            self._tell(envelope.Open(channel.rid, stream.id, stream.state, stream.committed, cursor))
            await reader.run(_opening(stream, format) if position == START else b"")
        finally:
            ctx.audience.leave(seat)
            left()
            if channel.lane is lane:
                channel.lane = None
        if lane.lost:
            raise StorageError

    def _input(self, message: envelope.Input) -> None:
        channel = known_rid(self._channels.get(message.rid))
        if channel.created is None:
            sentence = f"Only what was created under this rid, with up to {MAX_KEPT} bytes, takes an input."
            raise ClientError(sentence, code="input_not_possible", status=409, param="rid")
        channel.next_input = message.content
        if channel.busy and channel.lane is None:
            return  # one is being started, and will see it
        self._stop(channel)
        self._begin(channel, self._restart)

    # --- cancel ----------------------------------------------------------------------------------------

    def _cancel(self, message: envelope.Cancel) -> None:
        if message.stream:
            self._ask(self._cancel_stream, message.stream, message.rid)
            return
        channel = known_rid(self._channels.get(message.rid))
        if channel.busy and channel.lane is None:
            channel.cancelled = True  # it has no name yet, or another one in a moment
        else:
            self._ask(self._cancel_stream, channel.stream, message.rid)

    def _ask(self, act: Callable[..., Awaitable[None]], *given: Any) -> None:
        if len(self._asks) >= MAX_ASKS:
            message = "Too much is asked at a time: wait for answers."
            raise GatewayError(message, code="overloaded", status=503, retryable=True)
        task = self._group.create_task(self._run_ask(act, *given))
        self._asks.add(task)
        task.add_done_callback(self._asks.discard)

    async def _run_ask(self, act: Callable[..., Awaitable[None]], *given: str) -> None:
        try:
            await act(*given)
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001  as in `_run`
            named = given[0] if act == self._cancel_stream else ""
            self._fail(told(error, current_request_id()), stream=named)

    async def _cancel_stream(self, stream: str, rid: str) -> None:
        stream_id = stream_of(stream)
        if not stream_id:
            raise ClientError("There is no such stream.", code="stream_not_found", status=404)
        await self._check()
        found = await self._ctx.gateway.cancel(stream_id, self._caller.who)
        cursor = str(Cursor(found.id, found.position(found.committed)))
        self._tell(envelope.Cancelled(found.id, found.state, cursor, rid))

    # --- who -------------------------------------------------------------------------------------------

    def _authenticate(self, message: envelope.Auth) -> None:
        if not self._caller.takes_tokens:
            self._tell(envelope.Authed())  # it is known by where it comes from
            return
        if self._caller.principal is None:
            self._early = []
        self._ask(self._identify, message.token)

    async def _identify(self, token: str) -> None:
        try:
            await self._caller.say(token)
        except PenstockError as error:
            self._refuse(error)
            return
        self._admitted()
        self._tell(envelope.Authed(self._caller.expires_in))
        early, self._early = self._early, None
        for message in early or ():
            self._act(message)

    def _admitted(self) -> None:
        """It is known who this is, maybe for a while."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._socket.set_max_message(self._ctx.settings.max_body_bytes)
        seconds = self._caller.expires_in
        if seconds is not None and seconds <= MAX_WATCH:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._refuse, _expired())

    async def _check(self) -> None:
        """Make sure that the caller may still come in. Raises `ClientGone` when not."""
        try:
            await self._caller.check()
        except PenstockError as error:
            self._refuse(error)
            raise ClientGone from None

    def _watch(self) -> None:
        """Look at the credential now and then for as long as something is followed with it."""
        if self._rechecking is None and self._caller.principal is not None and self._caller.takes_tokens:
            loop = asyncio.get_running_loop()
            self._rechecking = loop.call_later(callers.RECHECK, self._look_again)

    def _look_again(self) -> None:
        self._rechecking = None
        if self._busy and not self.over.done():
            self._watch()
            with suppress(GatewayError):  # it is asked for so much that it is looked at anyway
                self._ask(self._check)

    def _refuse(self, error: PenstockError) -> None:
        self._fail(error)
        self._socket.close(UNAUTHORIZED, error.code)

    def _refuse_late(self) -> None:
        self._refuse(_unknown())

    # --- what is told ------------------------------------------------------------------------------------

    def _tell(self, message: ServerMessage) -> None:
        self._socket.push((envelope.encode(message),))

    def _fail(self, error: PenstockError, *, rid: str = "", stream: str = "") -> None:
        self._tell(envelope.failure(error, rid=rid, stream=stream))

    def _frozen(self) -> None:
        """The client took nothing for too long, of anything."""
        log.info("websocket_frozen", request_id=self._request_id, session=repr(self))
        self._socket.close(FROZEN, "nothing was taken for too long", LAST_WORD)


def _opening(stream: Stream, format: Format) -> bytes:
    """Return what stands before the first entry, where the format has something there."""
    if format.opening is None:
        return b""
    answer = Answer(stream.id, int(stream.info.created_at), stream.info.model)
    cursor = f"{stream.id}~{START}".encode()
    frames = format.opening(answer)
    return b"".join(envelope.rendered_line(cursor, event, data, ends=False) for event, data in frames)


def _unknown() -> ClientError:
    message = 'This gateway wants an API key: send {"type":"auth","token":…} first, and soon.'
    return ClientError(message, code="missing_api_key", status=401)


def _expired() -> ClientError:
    message = "The token's time is over, and no other one was said."
    return ClientError(message, code="expired_token", status=401)


def replaced(request: GenerationRequest, content: str) -> GenerationRequest:
    """Return ``request`` with ``content`` as what the user says last."""
    messages = [*request.messages]
    last = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "user"), None)
    if last is None:
        messages.append(Message("user", content))
    else:
        messages[last] = Message("user", content)
    return msgspec.structs.replace(request, messages=tuple(messages))
