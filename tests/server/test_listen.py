"""Opening the listening sockets."""

import contextlib
import socket

import pytest

from penstock.server.serving import ServingSettings, listen


@contextlib.contextmanager
def listening(host, port=0):
    sockets = listen(ServingSettings(host=host, port=port))
    try:
        yield [sock.getsockname() for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def test_every_address_of_localhost_gets_the_same_port():
    with listening("localhost") as names:
        assert len({name[1] for name in names}) == 1
        assert {name[0] for name in names} <= {"127.0.0.1", "::1"}


def test_a_port_that_is_taken_is_told_and_nothing_stays_open():
    with listening("127.0.0.1") as names, pytest.raises(OSError, match="in use"):
        listen(ServingSettings(host="127.0.0.1", port=names[0][1]))


def test_an_address_that_is_not_ours_is_told():
    with pytest.raises(OSError):
        listen(ServingSettings(host="192.0.2.1", port=0))


def test_a_slow_reader_cannot_hide_an_answer_in_the_kernel():
    sockets = listen(ServingSettings(port=0))
    try:
        # The kernel doubles what it is asked for, for its own needs.
        assert sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 64 * 1024
        assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 35_000
    finally:
        for sock in sockets:
            sock.close()
