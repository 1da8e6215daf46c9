"""Tokens for pages: what they allow, and that none is stretched, forged or exchanged for another."""

import base64
import json

import pytest

from penstock.policies.browser_tokens import BrowserTokens
from penstock.types.errors import ClientError
from penstock.types.keys import TokenOrder
from penstock.types.principals import Grant, Principal

NOW = 1_800_000_000.0
APP = Principal("web-app", key="0123456789", team="shop", admin=True)


class Wall:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def tokens(wall):
    return BrowserTokens(lambda: b"a secret of the store", wall)


def code(function, *args):
    with pytest.raises(ClientError) as refused:
        function(*args)
    return refused.value.code


def test_a_token_is_one_of_its_makers_own(tokens):
    made = tokens.make(APP, TokenOrder(user="alice", models=("demo",), spend=5, ttl=60))
    found = tokens.admit(made.token, "10.0.0.1")
    assert (found.id, found.key, found.team, found.admin) == ("web-app/alice", "0123456789", "shop", False)
    assert (found.grant.models, found.grant.spend, found.grant.ends_at) == (("demo",), 5, NOW + 60)
    assert found.grant.account.startswith("token:")
    assert found.address == "10.0.0.1"


def test_a_maker_may_use_what_its_page_started_and_a_page_nothing_of_others(tokens):
    page = tokens.make(APP, TokenOrder(user="alice")).principal
    assert APP.may_use(page.id, "s")
    assert not page.may_use("web-app", "s")
    assert not page.may_use("web-app/bob", "s")
    assert not Principal("web").may_use(page.id, "s")


def test_each_token_without_a_user_is_somebody_else(tokens):
    one, other = (tokens.make(APP, TokenOrder()).principal for _ in range(2))
    assert one.id != other.id


def test_it_ends_with_its_time(tokens, wall):
    made = tokens.make(APP, TokenOrder(ttl=60))
    wall.now += 59
    tokens.admit(made.token)
    wall.now += 1
    assert code(tokens.admit, made.token) == "expired_token"


def test_it_allows_no_more_than_the_key(tokens):
    limited = Principal("a", grant=Grant(models=("demo*",), routes=("stream",)))
    assert tokens.make(limited, TokenOrder()).principal.grant.models == ("demo*",)
    made = tokens.make(limited, TokenOrder(models=("demo-echo",)))
    assert (made.principal.grant.models, made.principal.grant.routes) == (("demo-echo",), ("stream",))
    for model in ("gpt-4o", "*", "d*", "[d]emo"):
        assert code(tokens.make, limited, TokenOrder(models=(model,))) == "model_not_allowed"


def test_no_token_makes_another(tokens):
    page = tokens.make(APP, TokenOrder(user="alice")).principal
    assert code(tokens.make, page, TokenOrder()) == "key_required"
    assert code(tokens.make, Principal("link", stream="s_1"), TokenOrder()) == "key_required"


def stretched(token, **changes):
    said, _, mac = token.removeprefix("pt_").partition(".")
    principal, maker, end = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
    changed = json.dumps([{**principal, **changes}, maker, end]).encode()
    return f"pt_{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}.{mac}"


@pytest.mark.parametrize(
    "change",
    [
        lambda token: stretched(token, id="admin"),
        lambda token: stretched(token, grant={}),
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token.replace(".", ".A", 1),
        lambda token: token.partition(".")[0] + "." + "A" * 43,
        lambda token: token.partition(".")[0],
        lambda token: "pt_.",
        lambda token: "pt_" + "A" * 10_000 + "." + "A" * 43,
        lambda token: token.replace("pt_", "pt_\u00e9"),
    ],
)
def test_no_forged_token_is_taken(tokens, change):
    made = tokens.make(APP, TokenOrder(user="alice"))
    assert code(tokens.admit, change(made.token)) == "invalid_token"


def test_a_token_of_another_gateway_is_not_taken(tokens, wall):
    other = BrowserTokens(lambda: b"another secret", wall)
    assert code(tokens.admit, other.make(APP, TokenOrder()).token) == "invalid_token"
