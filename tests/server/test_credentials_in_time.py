"""Credentials that end while an answer streams: what was let in goes on, what comes back is refused."""

import re

import pytest

from penstock.types.keys import KeyOrder, TokenOrder
from penstock.types.principals import Principal
from tests.server.conftest import config
from tests.server.raw import connected, request

ADMIN, APP = "admin-secret-0001", "app-secret-0002"
ASKED = {"request": {"model": "demo-stall", "messages": [{"role": "user", "content": "one two three"}]}}


@pytest.fixture
def settings():
    return config(keys={"root": {"key": ADMIN, "admin": True}, "app": APP})


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def while_it_streams(gateway, key, act):
    """Ask with ``key``; ``act`` once the answer has begun. Return why it is refused from then on."""
    async with connected(gateway.port) as client:
        client.send(request("POST", "/v1/streams", ASKED, Authorization=f"Bearer {key}"))
        await client.until(b"event: delta")
        (found,) = re.findall(rb"(?i)stream-id: (s_\w+)", client.got)
        stream = found.decode()
        await act()
        refused = await gateway.client.get(f"/v1/streams/{stream}/events", headers=bearer(key))
        again = await gateway.client.post("/v1/streams", json=ASKED, headers=bearer(key))
        assert (refused.status_code, again.status_code) == (401, 401)
        assert gateway.system.gateway.open_streams == 1
        assert not client.reader.at_eof()
        await gateway.client.post(f"/v1/streams/{stream}/cancel", headers=bearer(ADMIN))
        await client.until(b"cancelled")
        assert client.statuses == [200]
    return refused.json()["error"]["code"]


async def test_a_key_that_is_revoked_starts_nothing_and_what_it_started_goes_on(gateway):
    made = await gateway.system.context.desk.create(KeyOrder("robot"))
    await gateway.system.context.keys_changed()

    async def revoke():
        ended = await gateway.client.delete(f"/v1/admin/keys/{made.record.id}", headers=bearer(ADMIN))
        assert ended.status_code == 200

    assert await while_it_streams(gateway, made.key, revoke) in ("invalid_api_key", "revoked_api_key")


async def test_a_token_that_ends_in_mid_answer_ends_no_answer(gateway, monkeypatch):
    minter = gateway.system.context.minter
    token = minter.make(Principal("app", key="config.app"), TokenOrder(user="eve", ttl=60)).token

    async def let_it_end():
        late = minter._wall() + 61
        monkeypatch.setattr(minter, "_wall", lambda: late)

    assert await while_it_streams(gateway, token, let_it_end) == "expired_token"
