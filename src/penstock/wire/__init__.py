"""Wire formats, sans-I/O: bytes to types and back. No socket, no clock, no log enters here."""
