"""Connections of one address: counted while they are there, whatever becomes of them, and bounded."""

from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from penstock.server.addresses import OWN, Places
from penstock.server.proxies import parse_network
from tests.server.conftest import running
from tests.server.raw import connected, eventually, request

GET = request("GET", "/healthz")


@pytest.mark.parametrize(
    ("peer", "whose"),
    [
        (("203.0.113.9", 1), "203.0.113.9"),
        (("::ffff:203.0.113.9", 1, 0, 0), "203.0.113.9"),
        (("2001:db8:1:2:3::4", 1, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (("127.8.9.1", 1), ""),
        (("::1", 1, 0, 0), ""),
        (("::ffff:127.0.0.1", 1, 0, 0), ""),
        (("10.1.2.3", 1), ""),
        ("/run/penstock.sock", ""),
        ("", ""),
        (None, ""),
        (("no address", 1), ""),
    ],
)
def test_an_address_is_counted_as_what_one_client_has(peer, whose):
    assert Places(1, (*OWN, parse_network("10.0.0.0/8"))).whose(peer) == whose


def test_without_a_bound_nobody_is_counted():
    places = Places(0)
    assert places.whose(("203.0.113.9", 1)) == ""
    assert places.has_room("")
    places.take("")
    places.give_back("")


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 5), st.randoms())
def test_nobody_has_more_than_the_bound_and_all_is_forgotten_in_the_end(comers, most, rng):
    places, inside = Places(most), []
    for who in comers:
        if places.has_room(who):
            places.take(who)
            inside.append(who)
        else:
            assert inside.count(who) == most
        if inside and rng.random() < 0.4:
            places.give_back(inside.pop(rng.randrange(len(inside))))
    for who in inside:
        places.give_back(who)
    assert "0 addresses" in repr(places)
    assert places.has_room("a")


@pytest.mark.parametrize("upgraded", [False, True])
async def test_one_connection_too_many_is_told_so_and_the_next_has_its_place(system, settings, upgraded):
    async with running(system, settings, max_connections_per_address=2, uncounted=()) as served:
        places = served.server.places

        async def fill(held: AsyncExitStack) -> None:
            for _ in range(2):
                if upgraded:
                    await held.enter_async_context(connect(f"ws://127.0.0.1:{served.port}/v1/ws"))
                else:
                    client = await held.enter_async_context(connected(served.port))
                    client.send(GET)
                    await client.until(b'"ok"}')

        async with AsyncExitStack() as held:
            await fill(held)
            async with connected(served.port) as three:
                assert b"too many connections" in await three.to_end()
                assert three.statuses == [429]
        await eventually(lambda: "0 addresses" in repr(places))
        async with AsyncExitStack() as held:
            await fill(held)
        assert places.refused == 1
