"""An access token: fetched once for all, renewed before its end, and again when it is refused."""

import asyncio

import pytest

from penstock.providers import tokens
from penstock.providers.tokens import EARLY, PAUSE, Tokens
from penstock.types.errors import UpstreamError


class Shop:
    """Sells tokens that live for ``life`` seconds; ``broken`` is the error that it answers with instead."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sold = 0
        self.life = 3_600.0
        self.broken: UpstreamError | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.tokens = Tokens(self.sell, lambda: self.now)

    async def sell(self) -> tuple[str, float]:
        self.sold += 1
        number = self.sold
        await self.open.wait()
        if self.broken is not None:
            raise self.broken
        return f"secret-{number}", self.life

    async def get(self) -> str:
        return (await self.tokens.get()).value


BROKEN = UpstreamError("No.", code="invalid_api_key", status=401)


async def test_one_is_fetched_for_all_and_kept():
    shop = Shop()
    shop.open.clear()
    waiting = [asyncio.ensure_future(shop.get()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    shop.open.set()
    assert set(await asyncio.gather(*waiting[1:])) == {"secret-2"}  # the first one's was given up with it
    assert await shop.get() == "secret-2"
    assert "secret" not in repr(shop.tokens)


async def test_it_is_renewed_before_its_end():
    shop = Shop()
    assert await shop.get() == "secret-1"
    shop.now = shop.life - EARLY - 1
    assert await shop.get() == "secret-1"
    shop.now = shop.life - EARLY
    shop.life = 10.0
    assert await shop.get() == "secret-2"
    shop.now += 9.5
    assert await shop.get() == "secret-3"


async def test_nobody_waits_for_a_new_one_while_the_old_one_holds():
    shop = Shop()
    await shop.get()
    shop.now = shop.life - EARLY
    shop.open.clear()
    first = asyncio.ensure_future(shop.get())
    await asyncio.sleep(0)
    assert await shop.get() == "secret-1"
    assert shop.sold == 2
    shop.open.set()
    assert await first == "secret-2"
    assert await shop.get() == "secret-2"


async def test_who_renews_a_token_that_holds_does_not_wait_for_long(monkeypatch):
    monkeypatch.setattr(tokens, "RENEWING", 0.0)
    shop = Shop()
    await shop.get()
    shop.now = shop.life - EARLY
    shop.open.clear()  # for ever
    assert await shop.get() == "secret-1"
    assert await shop.get() == "secret-1"
    assert shop.sold == 2  # and the server is not asked at every call


async def test_an_old_one_serves_where_no_new_one_can_be_had():
    shop = Shop()
    await shop.get()
    shop.now, shop.broken = shop.life - 1, BROKEN
    assert await shop.get() == "secret-1"
    shop.now = shop.life + PAUSE
    with pytest.raises(UpstreamError):
        await shop.get()
    shop.broken = None
    shop.now += PAUSE
    assert await shop.get() == "secret-4"


async def test_those_who_ask_at_once_are_told_the_same_failure():
    shop = Shop()
    shop.broken = BROKEN
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await shop.get()
    assert shop.sold == 1


async def test_one_that_is_refused_is_dropped_once():
    shop = Shop()
    old = await shop.get()
    shop.tokens.drop(old)
    assert await shop.get() == "secret-2"
    shop.tokens.drop(old)  # somebody else had it, too
    assert await shop.get() == "secret-2"
