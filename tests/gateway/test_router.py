"""From model names to targets."""

import pytest

from penstock.gateway.router import MAX_OFFERS, ModelList, Pattern, Routing
from penstock.providers.provider import Model, Target
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


# --- what providers list -----------------------------------------------------------------------------


def prefix(name):
    return Pattern(f"{name}/*", (Target(name, name, "*"),), strip=f"{name}/")


LLAMA = Model("llama:latest", ("llama",))
LISTS = {
    "ollama": ModelList.of([LLAMA, Model("gpt"), Model("claude-x"), Model("near/x")]),
    "near": ModelList.of([Model("x"), Model("y")]),
    "main": ModelList.of([Model("o5"), Model("llama:latest"), Model("y")]),
}
FULL = Routing(
    {"gpt": (A, B), "fast": (Target("main/o5", "main", "o5"),)},
    (Pattern("claude-*", (B,)), prefix("main"), prefix("near")),
    listed=("ollama",),
    found=frozenset(["ollama"]),
    rest=Pattern("*", (Target("main", "main", "*"),)),
)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("gpt", "a", "m1"),  # a configured name beats a listed one
        ("claude-x", "b", "m2"),  # and so does a pattern
        ("near/x", "near", "x"),  # and a provider's prefix
        ("llama", "ollama", "llama:latest"),
        ("llama:latest", "ollama", "llama:latest"),
        ("ollama/gpt", "ollama", "gpt"),
        ("ollama/llama", "ollama", "llama:latest"),
        ("ollama/nope", "main", "ollama/nope"),
        ("nope", "main", "nope"),
    ],
)
def test_the_first_rule_that_takes_a_name_wins(name, provider, model):
    (target, *_) = FULL.route(name, LISTS)
    assert (target.provider, target.model) == (provider, model)


def test_without_lists_a_found_provider_takes_no_name():
    for name in ("llama", "ollama/llama"):
        assert FULL.route(name)[0].provider == "main"


def test_the_configuration_decides_alone_what_it_knows():
    assert [bool(FULL.route_configured(name)) for name in ("gpt", "claude-x", "near/z", "llama", "")] == [
        *(True, True, True),
        *(False, False),
    ]


def test_an_empty_name_is_unknown():
    with pytest.raises(ClientError):
        FULL.route("", LISTS)


def test_each_model_is_offered_once_by_the_name_that_leads_to_it():
    assert [(offer.name, offer.provider, offer.model) for offer in FULL.offers(LISTS)] == [
        ("gpt", "a", "m1"),
        ("fast", "main", "o5"),
        ("o5", "main", "o5"),
        ("y", "main", "y"),
        ("llama:latest", "ollama", "llama:latest"),
        ("main/llama:latest", "main", "llama:latest"),
        ("near/x", "near", "x"),
        ("near/y", "near", "y"),
        ("ollama/gpt", "ollama", "gpt"),
        ("ollama/claude-x", "ollama", "claude-x"),
        ("ollama/near/x", "ollama", "near/x"),
    ]


def test_every_offer_can_be_asked_for_and_so_can_its_aliases():
    for offer in FULL.offers(LISTS):
        for name in (offer.name, *offer.aliases):
            target = FULL.route(name, LISTS)[0]
            assert (target.provider, target.model) == (offer.provider, offer.model)


def test_offers_are_bounded_and_the_operators_come_first():
    lists = {"main": ModelList.of([Model(f"m{number}") for number in range(2 * MAX_OFFERS)])}
    offers = FULL.offers(lists)
    assert len(offers) == MAX_OFFERS
    assert [offer.name for offer in offers[:3]] == ["gpt", "fast", "m0"]


def test_a_pattern_of_the_operators_offers_the_names_that_match_it():
    routing = Routing({}, (Pattern("o*", (Target("main", "main", "*"),)), prefix("main")))
    offers = [offer.name for offer in routing.offers(LISTS)]
    assert offers == ["o5", "main/llama:latest", "main/y"]


def test_who_is_not_to_be_listed_is_neither_asked_nor_offered():
    routing = Routing({}, (prefix("near"), prefix("main")), listed=("near",), unlisted=frozenset(["near"]))
    assert list(routing.providers) == ["main"]
    assert list(routing.asked) == []
    assert routing.route("near/x", LISTS)[0].model == "x"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("llma", "'llama:latest'"),
        ("LLAMA", "'llama:latest'"),
        ("fats", "'fast'"),
        ("nearx", "'near/x'"),
        ("zzz", ""),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_are_like_it(asked, meant):
    message = FULL.unknown(asked, LISTS).message
    assert ("Did you mean" in message) == bool(meant)
    assert meant in message


def test_an_unknown_name_is_said_back_in_part_only():
    assert len(FULL.unknown("x" * 100_000, LISTS).message) < 400
