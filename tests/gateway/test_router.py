"""From model names to targets."""

import pytest

from penstock.gateway.router import Pattern, Routing
from penstock.providers.provider import Target
from penstock.types.errors import ClientError

A, B = Target("a", "a", "m1"), Target("b", "b", "m2")
ROUTING = Routing(
    {"gpt": (A, B)},
    (
        Pattern("near/*", (Target("near", "near", "*"),), strip="near/"),
        Pattern("claude-*", (B,)),
        Pattern("*-any", (Target("c", "c", "*"),)),
    ),
)


def test_a_name_goes_to_its_targets_in_order():
    assert ROUTING.route("gpt") == (A, B)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [("near/llama", "near", "llama"), ("claude-x", "b", "m2"), ("what-any", "c", "what-any")],
)
def test_a_pattern_takes_names_that_match(name, provider, model):
    (target,) = ROUTING.route(name)
    assert (target.provider, target.model) == (provider, model)


def test_an_unknown_name_is_the_clients_error_and_says_where_to_look():
    with pytest.raises(ClientError) as caught:
        ROUTING.route("nope")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert "/v1/models" in caught.value.message
