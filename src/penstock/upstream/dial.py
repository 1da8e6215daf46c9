"""Opens a way to an origin: addresses, TCP, a proxy's tunnel, TLS.

Linear code over a plain non-blocking socket, so that whoever is cancelled here, at any await, closes
one thing: the socket. What comes out is a socket ready for a `penstock.upstream.http1.Connection`.

uvloop's `create_connection` tries addresses one after the other, each for as long as the kernel does
(over two minutes): one dead IPv6 route would cost the whole connect timeout. Hence the racing of
RFC 8305 here. Timeouts as a whole, and pooling, do not enter.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from penstock.types.errors import UpstreamError, connect_failed
from penstock.upstream.http1 import Origin, ReadBuffers
from penstock.upstream.proxies import Proxy
from penstock.upstream.tls import PIECE_BYTES, TlsLayer, tls_failed

STAGGER: Final = 0.25
"""Seconds after which the next address is tried beside those under way (RFC 8305 §5)."""

MAX_ADDRESSES: Final = 16
MAX_TUNNEL_HEAD_BYTES: Final = 16 * 1024

Address = tuple[socket.AddressFamily, Any]


class Dialled(NamedTuple):
    """A connected socket, and the TLS layers on it."""

    sock: socket.socket
    tls: TlsLayer | None


class Dialler(NamedTuple):
    """How connections are opened. ``dead_peer_timeout`` is in seconds: how long a peer may leave sent
    bytes or keep-alive probes unanswered."""

    context: ssl.SSLContext
    buffers: ReadBuffers
    dead_peer_timeout: float

    async def dial(
        self, origin: Origin, proxy: Proxy | None, session: ssl.SSLSession | None = None
    ) -> Dialled:
        """Connect to ``origin``, through ``proxy`` if one is given. Raises `UpstreamError`.

        ``session`` is an earlier TLS session with the same origin. Cancelled at any point, it leaves
        no socket behind.
        """
        peer = f"the proxy {proxy}" if proxy is not None else str(origin)
        near = proxy.origin if proxy is not None else origin
        try:
            sock = await connect(await resolve(near.host, near.port))
        except OSError as exc:
            raise connect_failed(peer) from exc
        try:
            self._tune(sock)
            wire = _Wire(sock, peer)
            if proxy is not None and near.scheme == "https":
                await wire.secure(TlsLayer(self.context, near.host, peer, self.buffers.tunnel))
            if proxy is not None and origin.scheme == "https":
                await _open_tunnel(wire, origin, proxy)
            if origin.scheme == "https":
                wire.peer = str(origin)
                layer = TlsLayer(
                    self.context,
                    origin.host,
                    wire.peer,
                    self.buffers.plain,
                    session=session,
                    below=wire.tls,
                )
                await wire.secure(layer)
        except OSError as exc:
            sock.close()
            raise connect_failed(wire.peer) from exc
        except BaseException:
            sock.close()
            raise
        return Dialled(sock, wire.tls)

    def _tune(self, sock: socket.socket) -> None:
        """Notice dead peers, and keep address translators from forgetting a stream that is silent
        while a model thinks."""
        third = max(1, round(self.dead_peer_timeout / 3))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", third),
            ("TCP_KEEPINTVL", max(1, third // 2)),
            ("TCP_KEEPCNT", 4),
            ("TCP_USER_TIMEOUT", round(self.dead_peer_timeout * 1000)),
        ):
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of ``host`` in the order to try them: the resolver's, families taking
    turns (RFC 8305 §4), at most `MAX_ADDRESSES`. Raises `OSError`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [(socket.AF_INET6 if address.version == 6 else socket.AF_INET, (host, port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [(family, sockaddr) for family, _, _, _, sockaddr in found]
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    other = [entry for entry in addresses if entry[0] != addresses[0][0]]
    turns: list[Address] = []
    while (first or other) and len(turns) < MAX_ADDRESSES:
        turns += first[:1] + other[:1]
        first, other = first[1:], other[1:]
    return turns


async def connect(addresses: Sequence[Address], *, stagger: float = STAGGER) -> socket.socket:
    """Return a socket connected to the first of ``addresses`` that answers.

    The next one is tried when one fails, or after ``stagger`` seconds. Raises the first failure's
    `OSError` when none answers. No socket but the returned one stays open.
    """
    loop = asyncio.get_running_loop()
    made: list[socket.socket] = []
    under_way: list[socket.socket] = []
    failures: list[OSError] = []
    answered = asyncio.Event()
    left = list(addresses)

    winner: socket.socket | None = None
    try:
        while winner is None and (left or under_way):
            if left:
                family, sockaddr = left.pop(0)
                try:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                    made.append(sock)
                    sock.setblocking(False)
                    sock.connect(sockaddr)
                except BlockingIOError:
                    loop.add_writer(sock, answered.set)
                    under_way.append(sock)
                except OSError as exc:  # as soon as this: no route, or no such family here
                    failures.append(exc)
                    continue
                else:
                    winner = sock
                    continue
            try:
                async with asyncio.timeout(stagger if left else None):
                    await answered.wait()
            except TimeoutError:
                continue
            answered.clear()
            for sock in under_way.copy():
                outcome = _outcome(sock)
                if outcome is None:
                    continue
                loop.remove_writer(sock)
                under_way.remove(sock)
                if outcome:
                    failures.append(OSError(outcome, "connect failed"))
                elif winner is None:
                    winner = sock
        if winner is None:
            raise failures[0] if failures else OSError("the name has no address")
        made.remove(winner)
        return winner
    finally:
        for sock in under_way:
            loop.remove_writer(sock)
        for sock in made:
            sock.close()


def _outcome(sock: socket.socket) -> int | None:
    """Return how a connect ended: 0 or an errno; None while it is under way."""
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return error
    try:
        sock.getpeername()
    except OSError:
        return None
    return 0


class _Wire:
    """A connected socket with the TLS layers that it has by now, for the time before HTTP."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.tls: TlsLayer | None = None
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.send_raw(data if self.tls is None else self.tls.encrypt(data))

    async def send_raw(self, data: bytes) -> None:
        if data:
            await self._loop.sock_sendall(self.sock, data)

    async def receive_raw(self) -> bytes:
        """Return what came. Raises `ConnectionResetError` at the end: nobody may leave yet."""
        data = await self._loop.sock_recv(self.sock, PIECE_BYTES)
        if not data:
            raise ConnectionResetError
        return data

    async def receive(self) -> bytes:
        data = await self.receive_raw()
        return data if self.tls is None else bytes(self.tls.decrypt(data))

    async def secure(self, layer: TlsLayer) -> None:
        """Shake hands. Raises `UpstreamError`."""
        done, output = layer.handshake()
        while not done:
            await self.send_raw(output)
            try:
                data = await self.receive_raw()
            except ConnectionResetError as exc:
                raise tls_failed(self.peer, "it closed the connection during the handshake") from exc
            done, output = layer.handshake(data)
        await self.send_raw(output)
        self.tls = layer


async def _open_tunnel(wire: _Wire, origin: Origin, proxy: Proxy) -> None:
    """Ask the proxy for a tunnel to ``origin`` (RFC 9110 §9.3.6). Raises `UpstreamError`, `OSError`."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    authority = f"{host}:{origin.port}"  # the port always, even the scheme's own
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    await wire.send("\r\n".join([*lines, "\r\n"]).encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_TUNNEL_HEAD_BYTES:
            raise _refused(origin, proxy, 0)
        try:
            head += await wire.receive()
        except ConnectionResetError as exc:
            raise _refused(origin, proxy, 0) from exc
    words = head.split(b"\r\n", 1)[0].split(None, 2)
    valid = len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit()
    status = int(words[1]) if valid else 0
    if not 200 <= status < 300 or not head.endswith(b"\r\n\r\n"):
        raise _refused(origin, proxy, status)


def _refused(origin: Origin, proxy: Proxy, status: int) -> UpstreamError:
    """The proxy gives no tunnel."""
    if status == 407:
        reason = "it asks for other credentials (status 407)"
    elif status and not 200 <= status < 300:
        reason = f"it answered with status {status}"
    else:
        reason = "its answer is not that of a proxy"
    return UpstreamError(
        f"The proxy {proxy} opened no tunnel to {origin}: {reason}.",
        code="upstream_proxy",
        retryable=status not in (403, 405, 407),
        upstream_status=status,
    )
