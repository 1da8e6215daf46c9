"""Calls are spread as the strategy says, and never to a target that is known to fail first."""

import random
from collections import Counter

import pytest

from penstock.gateway.balance import ordered
from penstock.gateway.health import Health, HealthSettings
from penstock.providers.provider import Target

A, B, C = (Target(name, name, "m", weight=weight) for name, weight in (("a", 1), ("b", 3), ("c", 1)))
STRATEGIES = ["order", "weighted", "least_busy", "fastest"]


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def health(now):
    return Health(HealthSettings(), lambda: now[0])


def first(targets, balance, health, times=2_000):
    """Return how often each came first."""
    chance = random.Random(7).random
    return Counter(ordered(targets, balance, health, chance)[0].name for _ in range(times))


def answer(health, now, name, seconds):
    trial = health.of(name).begin()
    now[0] += seconds
    trial.output()
    trial.end()


def break_(health, name):
    for _ in range(5):
        trial = health.of(name).begin()
        trial.fail()
        trial.end()


@pytest.mark.parametrize("balance", STRATEGIES)
def test_every_target_is_there_once(health, balance):
    assert sorted(t.name for t in ordered((A, B, C), balance, health)) == ["a", "b", "c"]


def test_order_is_the_written_one(health):
    assert first((A, B, C), "order", health) == {"a": 2_000}


def test_weights_are_shares(health):
    found = first((A, B, C), "weighted", health)
    assert 0.55 < found["b"] / 2_000 < 0.65
    assert 0.15 < found["a"] / 2_000 < 0.25


def test_least_busy_is_who_runs_least_for_its_weight(health):
    for name in ("a", "b", "b"):
        health.of(name).begin()
    assert first((A, B), "least_busy", health) == {"b": 2_000}
    health.of("c").begin()
    found = first((A, C), "least_busy", health)
    assert min(found["a"], found["c"]) > 800


def test_fastest_is_the_better_of_two(health, now):
    for name, seconds in (("a", 0.2), ("b", 1.0), ("c", 2.0)):
        answer(health, now, name, seconds)
    found = first((A, B, C), "fastest", health)
    assert found["a"] > found["b"] > 0
    assert found["c"] == 0


def test_target_nobody_asked_yet_gets_its_chance(health, now):
    answer(health, now, "a", 0.2)
    assert first((A, B), "fastest", health)["b"] == 2_000


@pytest.mark.parametrize("balance", STRATEGIES)
def test_open_breakers_come_last_the_oldest_first(health, now, balance):
    break_(health, "a")
    now[0] += 1
    break_(health, "b")
    assert [t.name for t in ordered((B, A, C), balance, health)] == ["c", "a", "b"]
