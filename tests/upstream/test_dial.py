"""Which of several addresses is connected to, and that no socket is left of the others."""

import asyncio
import errno
import os
import socket

import pytest

from penstock.upstream.dial import MAX_ADDRESSES, connect, resolve
from tests.upstream.servers import full_backlog


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield (socket.AF_INET, sock.getsockname())


@pytest.fixture
def hanging():
    with full_backlog() as origin:
        yield (socket.AF_INET, ("127.0.0.1", origin.port))


@pytest.fixture
def refusing():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield (socket.AF_INET, sock.getsockname())


@pytest.fixture(autouse=True)
def _no_descriptor_is_left(listener, hanging, refusing):
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the listing itself


async def test_first_address_that_answers_is_taken(listener, refusing):
    with await connect([refusing, listener, refusing], stagger=100) as sock:
        assert sock.getpeername() == listener[1]


async def test_next_address_is_tried_beside_one_that_hangs(listener, hanging):
    with await connect([hanging, hanging, listener], stagger=0.01) as sock:
        assert sock.getpeername() == listener[1]


async def test_refusal_does_not_end_the_wait_for_the_others(listener, hanging, refusing):
    with await connect([hanging, refusing, listener], stagger=0.01) as sock:
        assert sock.getpeername() == listener[1]


async def test_failure_is_that_of_the_first_address(refusing):
    with pytest.raises(OSError) as caught:
        await connect([refusing, (socket.AF_INET, ("255.255.255.255", 9))])
    assert caught.value.errno == errno.ECONNREFUSED


async def test_no_address_is_a_failure():
    with pytest.raises(OSError):
        await connect([])


@pytest.mark.parametrize("turn", range(6))
async def test_cancelled_race_leaves_no_socket(listener, hanging, refusing, turn):
    task = asyncio.ensure_future(connect([hanging, refusing, hanging], stagger=0.001))
    for _ in range(turn):
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_address_needs_no_resolver(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert await resolve(host, 80) == [(family, (host, 80))]


async def test_families_take_turns(monkeypatch):
    four, six = socket.AF_INET, socket.AF_INET6
    answer = [(family, 1, 6, "", (str(n), 80)) for family in (six, four) for n in range(20)]

    async def getaddrinfo(*args, **kwargs):
        return answer

    class Resolver:
        pass

    Resolver.getaddrinfo = staticmethod(getaddrinfo)
    monkeypatch.setattr(asyncio, "get_running_loop", Resolver)
    addresses = await resolve("name", 80)
    assert [family for family, _ in addresses] == [six, four] * (MAX_ADDRESSES // 2)
