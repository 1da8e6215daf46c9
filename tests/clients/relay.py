"""The network between a client and a gateway: it carries bytes, remembers them, and breaks when told to.

It can also serve pages, which are so of one origin with the gateway behind it.
"""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

REQUEST = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS) (\S+) HTTP/1\.1\r\n")


class Relay:
    """A relay to the gateway at ``target``. ``up`` and ``down`` are all bytes so far.

    ``pages``: HTML by path. ``cuts``: each of the next event streams is cut after so many bytes that
    follow its head; what comes to the cut is delivered, then the connection is lost.
    """

    def __init__(self, target: str, pages: dict[str, str]) -> None:
        url = urlsplit(target)
        self._target = (url.hostname, url.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.pages = pages
        self.cuts: list[int] = []
        self.up = bytearray()
        self.down = bytearray()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def requests(self) -> list[str]:
        """The paths that were asked for, without queries."""
        return [urlsplit(found.decode()).path for found in REQUEST.findall(bytes(self.up))]

    def start(self) -> None:
        self._run(self._accept)

    def stop(self) -> None:
        self._shut(self._listener)
        for sock in self._sockets:
            self._shut(sock)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._sockets):
            sock.close()

    def cut(self) -> None:
        """Lose all connections that there are."""
        for sock in self._sockets:
            self._shut(sock)

    def _run(self, body, *arguments) -> None:
        thread = threading.Thread(target=body, args=arguments)
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _shut(sock: socket.socket) -> None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut: the end
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            gateway: socket.socket | None = None
            while head := client.recv(65536):
                found = REQUEST.match(head)
                if found and (page := self.pages.get(urlsplit(found[1].decode()).path)):
                    kind = "content-type: text/html; charset=utf-8\r\nconnection: close\r\n"
                    client.sendall(f"HTTP/1.1 200 OK\r\n{kind}\r\n{page}".encode())
                    break
                if gateway is None:
                    gateway = socket.create_connection(self._target)
                    self._sockets.append(gateway)
                    self._run(self._downwards, gateway, client)
                self.up += head
                gateway.sendall(head)
            if gateway is not None:
                self._shut(gateway)
        self._shut(client)

    def _downwards(self, gateway: socket.socket, client: socket.socket) -> None:
        left: int | None = None
        with suppress(OSError):
            while data := gateway.recv(65536):
                if self.cuts and b"content-type: text/event-stream" in data:
                    left = self.cuts.pop(0) + data.index(b"\r\n\r\n") + 4
                if left is not None:
                    data, left = data[:left], left - len(data)
                self.down += data
                client.sendall(data)
                if left is not None and left <= 0:
                    break
        self._shut(client)
        self._shut(gateway)


@contextmanager
def relaying(target: str, pages: dict[str, str] | None = None) -> Iterator[Relay]:
    """Run a relay."""
    relay = Relay(target, pages or {})
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()
