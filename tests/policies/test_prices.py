"""What tokens cost: the operator's word first, then what is known of a provider's address."""

import pytest

from penstock.policies.prices import Price, Prices
from penstock.types.events import UsageReported
from penstock.types.usage import USD

MILLION = UsageReported(input_tokens=1_000_000, output_tokens=1_000_000)
ADDRESSES = {
    "openai": "https://api.openai.com/v1",
    "claude": "https://api.anthropic.com",
    "own": "http://10.0.0.1/v1",
}


def test_the_operators_table_comes_first_and_its_first_pattern_that_fits():
    prices = Prices({"own/fast*": Price(1, 2), "gpt-4o": Price(0, 0), "*": Price(3, 4)}, ADDRESSES)
    assert prices.cost("own", "fast-1", MILLION) == 3 * USD
    assert prices.cost("openai", "gpt-4o", MILLION) == 0
    assert prices.cost("openai", "anything", MILLION) == 7 * USD


def test_cached_input_costs_what_is_said_else_what_input_costs():
    usage = UsageReported(1_000_000, 0, cached_tokens=400_000, cache_write_tokens=100_000)
    assert Price(1, 0).cost(usage) == USD
    assert Price(1, 0, cached=0.1, cache_write=2).cost(usage) == int(0.5 * USD + 0.04 * USD + 0.2 * USD)


def test_fractions_of_a_nano_dollar_are_rounded_once():
    assert Price(0.0375, 0).cost(UsageReported(input_tokens=1)) == 38
    assert Price(0.0375, 0).cost(UsageReported(input_tokens=1_000)) == 37_500


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-4o-mini"), ("claude", "claude-sonnet-4-5")])
def test_hosted_models_are_known_by_their_providers_address(provider, model):
    prices = Prices({}, ADDRESSES)
    cost = prices.cost(provider, model, UsageReported(1_000, 1_000))
    assert 0 < cost < USD
    assert prices.cost(provider, model, UsageReported(1_000, 1_000, cached_tokens=900)) < cost
    rates = prices.rates(provider, model)
    assert round(1_000 * (rates.input + rates.output)) == cost


@pytest.mark.parametrize(
    ("provider", "model"), [("own", "gpt-4o"), ("demo", "demo"), ("openai", "nonsense"), ("openai", "")]
)
def test_what_nobody_knows_has_no_price(provider, model):
    prices = Prices({}, ADDRESSES)
    assert prices.cost(provider, model, MILLION) is None
    assert prices.rates(provider, model) is None
