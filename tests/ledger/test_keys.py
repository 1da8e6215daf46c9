"""Keys at rest, in both databases."""

import pytest

from penstock.ledger.keys import create_key, list_keys, revoke_key, rotate_key
from penstock.types.errors import ClientError
from penstock.types.keys import KeyOrder, same
from penstock.types.principals import Grant

NOW = 1_800_000_000.0


def test_a_key_is_kept_by_its_hash_alone(database, url):
    made = database.run(create_key, KeyOrder("app", "shop", ttl=60, grant=Grant(models=("m",))), NOW)
    (record,) = database.run(list_keys)
    assert record == made.record
    assert (record.name, record.team, record.expires_at, record.grant.models) == (
        "app",
        "shop",
        NOW + 60,
        ("m",),
    )
    assert same(record.hashed, made.key)
    secret = made.key.rpartition("_")[2]
    assert secret not in repr(record)
    assert secret not in repr(database.run(list_keys))


def test_a_rotated_key_has_a_successor_that_may_the_same_and_ends_after_its_grace(database):
    old = database.run(create_key, KeyOrder("app", "shop", admin=True, ttl=1_000), NOW).record
    new = database.run(rotate_key, old.id, 100.0, NOW + 10).record
    found = {record.id: record for record in database.run(list_keys)}
    assert (new.name, new.team, new.admin, new.expires_at) == ("app", "shop", True, NOW + 1_000)
    assert (found[old.id].expires_at, found[old.id].replaced_by) == (NOW + 110, new.id)
    assert found[old.id].state(NOW + 109) == "active"
    assert found[old.id].state(NOW + 110) == "expired"


def test_a_grace_does_not_outlast_the_key(database):
    old = database.run(create_key, KeyOrder("app", ttl=50), NOW).record
    database.run(rotate_key, old.id, 100.0, NOW)
    assert {record.expires_at for record in database.run(list_keys)} == {NOW + 50}


def test_a_revoked_key_stays_revoked_and_cannot_be_rotated(database):
    old = database.run(create_key, KeyOrder("app"), NOW).record
    assert database.run(revoke_key, old.id, NOW + 1).state(NOW + 1) == "revoked"
    assert database.run(revoke_key, old.id, NOW + 9).revoked_at == NOW + 1
    with pytest.raises(ClientError) as refused:
        database.run(rotate_key, old.id, 0.0, NOW + 2)
    assert refused.value.code == "key_not_active"


@pytest.mark.parametrize("key_id", ["0000000000", "", "' OR 1=1 --", "x" * 1000])
def test_a_key_that_is_none_is_not_found(database, key_id):
    database.run(create_key, KeyOrder("app"), NOW)
    for function, more in ((revoke_key, ()), (rotate_key, (0.0,))):
        with pytest.raises(ClientError) as refused:
            database.run(function, key_id, *more, NOW)
        assert refused.value.status == 404
