"""Our WebSocket protocol: what it writes is read back by the library, and its bounds hold."""

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from penstock.server.websocket import header


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
def test_what_is_written_is_read_back(size):
    client = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN)
    client.receive_data(header(size) + b"x" * size + header(1, 0x82) + b"y")
    text, binary = client.events_received()
    assert (text.opcode, text.fin, bytes(text.data)) == (Opcode.TEXT, True, b"x" * size)
    assert (binary.opcode, bytes(binary.data)) == (Opcode.BINARY, b"y")
