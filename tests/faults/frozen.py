"""A process that reads a stream over many connections, to be stopped in the middle of it.

``python frozen.py <port> <path> <count>``: says ``ready`` once every connection has got something,
reads on, and says ``cut`` when the gateway has ended all of them, none with the end of a body.
"""

import selectors
import socket
import sys

port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
got = {}
selector = selectors.DefaultSelector()
for _ in range(count):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    selector.register(sock, selectors.EVENT_READ)
    got[sock] = b""
said = False
while selector.get_map():
    for key, _ in selector.select():
        sock = key.fileobj
        try:
            data = sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            selector.unregister(sock)
            continue
        got[sock] = data[-7:]
    if not said and all(got.values()):
        print("ready", flush=True)
        said = True
print("whole" if any(last.endswith(b"0\r\n\r\n") for last in got.values()) else "cut", flush=True)
