"""A fake provider that ends as a process does: whoever is connected is cut off."""

import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MortalServer(ThreadingHTTPServer):
    """Listens on a loopback port; `stop` cuts all connections."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.stopping = False
        self._connections: set[socket.socket] = set()

    def process_request(self, request, client_address):
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request):
        self._connections.discard(request)
        super().close_request(request)

    def stop(self) -> None:
        self.stopping = True
        self.shutdown()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
