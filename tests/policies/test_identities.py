"""Who comes with which credential, from where: keys that change meanwhile, addresses, origins."""

import asyncio

import pytest

from penstock.policies.api_keys import FRESHNESS, NO_NEWS, PATIENCE, PAUSE, KeyRing
from penstock.policies.browser_tokens import BrowserTokens
from penstock.policies.identities import Identities
from penstock.types.errors import ClientError, GatewayError
from penstock.types.keys import KeyRecord, TokenOrder, hash_key, new_key
from penstock.types.principals import Grant, Whence
from tests.virtual_time import run_virtually

NOW = 1_800_000_000.0


class Source:
    """Keys at rest, as another process may change them."""

    def __init__(self):
        self.records, self.reads, self.away = {}, 0, False

    async def keys(self):
        self.reads += 1
        if self.away:
            raise GatewayError("away", code="ledger_unavailable", status=503)
        return list(self.records.values())

    def add(self, name="app", **more):
        key_id, key = new_key()
        self.records[key_id] = KeyRecord(key_id, name, hash_key(key), **more)
        return key, key_id


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def ring(source, clock):
    return KeyRing(source=source, clock=clock, wall=lambda: NOW)


async def code(coroutine):
    with pytest.raises(ClientError) as refused:
        await coroutine
    return refused.value.code


async def test_a_key_that_was_just_made_elsewhere_works_at_once(ring, source, clock):
    await ring.open()
    clock.now += NO_NEWS + 0.1
    key, key_id = source.add("new", team="shop")
    principal = await ring.find(key, "10.0.0.1")
    assert (principal.id, principal.key, principal.team, principal.address) == (
        *("new", key_id, "shop"),
        "10.0.0.1",
    )


async def test_the_first_key_of_all_works_at_once(ring, source, clock):
    identities = Identities(ring, None, BrowserTokens(lambda: b"secret", clock))
    await ring.open()
    clock.now += NO_NEWS + 0.1
    key, _ = source.add("first")
    await identities.fresh()
    await identities.fresh("sk-of-somebody-else")
    assert not identities.any
    await identities.fresh(key)
    assert identities.any
    assert (await identities.identify(key, Whence())).id == "first"


async def test_a_key_that_was_revoked_elsewhere_ends_within_seconds(ring, source, clock):
    key, key_id = source.add()
    await ring.find(key)
    source.records[key_id] = KeyRecord(key_id, "app", hash_key(key), revoked_at=NOW)
    clock.now += FRESHNESS + 0.1
    assert await code(ring.find(key)) == "invalid_api_key"


async def test_an_expired_key_is_told_so_only_to_who_has_it(ring, source):
    key, key_id = source.add(expires_at=NOW)
    assert await code(ring.find(key)) == "expired_api_key"
    assert await code(ring.find(f"pk_{key_id}_{'A' * 43}")) == "invalid_api_key"


def test_guessing_costs_the_database_a_few_reads_a_second(source):
    async def guess():
        loop = asyncio.get_running_loop()
        ring = KeyRing(source=source, clock=loop.time, wall=lambda: NOW)
        source.add()
        for text in ("", "x", "pk_", "pk_0123456789_short", "pk_0123456789_" + "é" * 43):
            assert await code(ring.find(text)) == "invalid_api_key"
        assert source.reads == 0
        for _ in range(2):
            refused = await asyncio.gather(*(code(ring.find(new_key()[1])) for _ in range(100)))
            assert refused == ["invalid_api_key"] * 100
        assert source.reads == 3
        assert loop.time() == pytest.approx(2 * NO_NEWS)

    run_virtually(guess())


def test_a_key_that_was_made_a_moment_after_the_last_look_is_waited_for(source):
    async def come():
        loop = asyncio.get_running_loop()
        ring = KeyRing(source=source, clock=loop.time, wall=lambda: NOW)
        identities = Identities(ring, None, BrowserTokens(lambda: b"secret", loop.time))
        await ring.open()
        first, _ = source.add("first")
        await identities.fresh(first)
        assert (await identities.identify(first, Whence())).id == "first"
        second, _ = source.add("second")
        assert (await identities.identify(second, Whence())).id == "second"
        assert loop.time() == pytest.approx(2 * NO_NEWS)

    run_virtually(come())


async def test_while_the_ledger_is_away_known_keys_are_good(ring, source, clock):
    key, _ = source.add()
    await ring.find(key)
    source.away = True
    clock.now += FRESHNESS + 0.1
    for _ in range(10):
        assert (await ring.find(key)).id == "app"
    assert source.reads == 2  # and nobody else is made to wait for it
    source.away = False
    clock.now += PAUSE + FRESHNESS + 0.1
    assert (await ring.find(key)).id == "app"
    assert source.reads == 3


async def test_a_gateway_does_not_start_without_knowing_its_keys(ring, source):
    source.away = True
    with pytest.raises(GatewayError):
        await ring.open()


def test_nobody_waits_long_for_a_database_that_hangs():
    class Hanging:
        async def keys(self):
            await asyncio.Event().wait()

    async def main():
        loop = asyncio.get_running_loop()
        ring = KeyRing(source=Hanging(), clock=loop.time, wall=lambda: NOW)
        await asyncio.sleep(10)
        for _ in range(5):
            await ring.refresh(FRESHNESS)
        assert loop.time() == 10 + PATIENCE

    run_virtually(main())


async def identify(record, credential, **whence):
    ring = KeyRing([record], clock=lambda: 0.0, wall=lambda: NOW)
    tokens = BrowserTokens(lambda: b"secret", lambda: NOW)
    return (await Identities(ring, None, tokens).identify(credential, Whence(**whence))).id


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("11.0.0.1", False),
        ("", False),
        ("10.1.2.3.evil.example", False),
    ],
)
async def test_a_key_works_from_its_addresses_only(address, allowed):
    grant = Grant(addresses=("10.0.0.0/8", "2001:db8::/32"))
    record = KeyRecord("config.a", "a", hash_key("secret-key"), grant=grant)
    if allowed:
        assert await identify(record, "secret-key", address=address) == "a"
    else:
        assert await code(identify(record, "secret-key", address=address)) == "address_not_allowed"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", True),
        ("https://APP.example/", True),
        ("https://app.example.evil", False),
        ("http://app.example", False),
        ("null", False),
        ("", False),
    ],
)
async def test_a_key_works_on_its_pages_only(origin, allowed):
    grant = Grant(origins=("https://app.example",))
    record = KeyRecord("config.a", "a", hash_key("secret-key"), grant=grant)
    if allowed:
        assert await identify(record, "secret-key", origin=origin) == "a"
    else:
        assert await code(identify(record, "secret-key", origin=origin)) == "origin_not_allowed"


async def test_a_pages_token_ends_with_the_key_that_it_was_made_with(ring, source, clock):
    tokens = BrowserTokens(lambda: b"secret", lambda: NOW)
    identities = Identities(ring, None, tokens)
    key, key_id = source.add()
    token = tokens.make(await ring.find(key), TokenOrder(user="alice")).token
    assert (await identities.identify(token, Whence())).id == "app/alice"
    source.records[key_id] = KeyRecord(key_id, "app", hash_key(key), revoked_at=NOW)
    clock.now += FRESHNESS + 0.1
    assert await code(identities.identify(token, Whence())) == "invalid_api_key"
