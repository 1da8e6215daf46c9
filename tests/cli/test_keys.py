"""`penstock keys` beside nothing and beside a running gateway."""

import json
import re

import httpx
import pytest

from penstock.types.keys import id_of
from tests.clients.gateway import serving, wait_for


@pytest.fixture
def data(tmp_path):
    return {"PENSTOCK_DATA": str(tmp_path / "data")}


def test_a_key_is_printed_alone_and_listed_without_itself(run, data):
    made = run("keys", "create", "web-app", "--team", "shop", "--model", "demo*", "--expires", "90d", **data)
    key = made.stdout.strip()
    assert id_of(key)
    assert "shown once" in made.stderr
    listed = run("keys", "list", **data)
    assert re.fullmatch(
        rf"{id_of(key)}\tweb-app\tshop\tactive\t\tuntil [\d: -]+\tmodels=demo\*\n", listed.stdout
    )
    assert key not in listed.stdout + listed.stderr


def test_keys_are_replaced_and_ended(run, data):
    first = json.loads(run("keys", "create", "app", "--admin", "--json", **data).stdout)
    second = json.loads(run("keys", "rotate", first["id"], "--grace", "1h", "--json", **data).stdout)
    assert second["admin"]
    assert run("keys", "revoke", second["key"], **data).returncode == 0  # more of it than the id will do
    states = {one["id"]: one["state"] for one in json.loads(run("keys", "list", "--json", **data).stdout)}
    assert states == {first["id"]: "active", second["id"]: "revoked"}


@pytest.mark.parametrize(
    "words",
    [
        ["create", "a/b"],
        ["create", "a", "--team", "x y"],
        ["create", "a", "--expires", "soon"],
        ["create", "a", "--origin", "app.example"],
        ["create", "a", "--address", "10.0.0.0/99"],
    ],
)
def test_what_cannot_be_is_a_usage_error(run, data, words):
    assert run("keys", *words, **data).returncode == 2


def test_a_key_that_is_none_is_said_so(run, data):
    for verb in ("revoke", "rotate"):
        said = run("keys", verb, "0000000000", **data)
        assert said.returncode == 66
        assert said.stderr.startswith("penstock: There is no such key.\n")
    key = json.loads(run("keys", "create", "app", "--json", **data).stdout)["id"]
    assert run("keys", "revoke", key, **data).returncode == 0
    assert run("keys", "rotate", key, **data).returncode == 66


def test_where_nothing_is_at_rest_there_are_no_keys(run, tmp_path):
    (tmp_path / "penstock.yaml").write_text("store: {kind: memory}\n")
    assert run("keys", "create", "a").returncode == 78


def test_the_first_key_closes_the_door_of_a_running_gateway(run, tmp_path):
    with serving(tmp_path / "own", {}) as gateway:
        url = f"{gateway.url}/v1/models"
        assert httpx.get(url).status_code == 200
        key = run("keys", "create", "first", PENSTOCK_DATA=str(tmp_path / "own" / "data")).stdout.strip()
        headers = {"authorization": f"Bearer {key}"}
        wait_for(lambda: httpx.get(url).status_code == 401)
        assert httpx.get(url, headers=headers).status_code == 200
