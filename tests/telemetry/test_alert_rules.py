"""What alerts are about, and when they are on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.alert_rules import SLICES, STEP, THRESHOLDS, Alert, AlertRule, Standing, Watch, span
from penstock.types.usage import USD, Purse
from tests.telemetry.signalling import attempt, began, ended, failed, refused

NOW = 1_000.0


def watch(when: str, *signals, at: float = NOW, **more) -> Watch:
    made = Watch(AlertRule("r", when, **{"above": THRESHOLDS[when], "least": 4, **more}))
    for signal in signals:
        made.observe(signal, at)
    return made


def value(made: Watch, now: float = NOW, **standing) -> float | None:
    reading = made.read(Standing(**standing), now)
    return reading and reading.value


def test_an_error_is_ours_or_the_providers_and_no_clients():
    signals = [ended(), ended("cancelled", "client"), ended("failed", "client"), failed(), refused()]
    signals += [refused("client"), ended("interrupted", "gateway"), ended("expired", "gateway")]
    made = watch("error_rate", *signals)
    assert value(made) == 4 / 7
    said = made.read(Standing(), NOW).says
    assert said.startswith("4 of 7 answers failed in 5 min (57.1%):")
    assert "1 × upstream_error at p/m" in said


def test_of_too_few_answers_nothing_is_said():
    made = watch("error_rate", failed(), failed(), failed())
    assert value(made) is None
    made.observe(failed(), NOW)
    assert value(made) == 1.0


def test_what_is_older_than_the_window_does_not_count():
    made = watch("error_rate", *[failed()] * 4, window=300)
    for _ in range(4):
        made.observe(ended(), NOW + 200)
    assert value(made, NOW + 200) == 0.5
    assert value(made, NOW + 300 + 300 / SLICES) == 0.0
    assert value(made, NOW + 1_000) is None


def test_a_rule_is_about_its_models():
    made = watch("error_rate", *[failed("gpt-5")] * 4, *[ended(model="demo")] * 4, models=("gpt-*",))
    assert value(made) == 1.0


def test_stalls_are_counted_by_attempts():
    signals = [attempt(), attempt("upstream_stalled"), attempt("upstream_silent"), attempt("upstream_reset")]
    assert value(watch("stall_rate", *signals, attempt("superseded"))) == 0.5


def test_a_percentile_is_near_the_truth():
    made = watch("first_chunk", *[began(n / 10) for n in range(1, 101)], percentile=95)
    assert 9.5 <= value(made) <= 9.5 * STEP
    assert "95 % of 100 answers" in made.read(Standing(), NOW).says


@given(st.lists(st.floats(0, 3_600), min_size=4, max_size=60), st.floats(1, 100))
def test_any_percentile_is_at_most_a_step_too_large(seconds, percentile):
    made = watch("first_chunk", *map(began, seconds), percentile=percentile)
    ordered = sorted(seconds)
    true = max(0.001, ordered[-(-len(ordered) * percentile // 100).__int__() - 1])
    assert true / 1.001 <= value(made) <= true * STEP * 1.001


def test_breakers_that_are_open_are_named():
    made = watch("breaker_open")
    assert value(made, breakers=["b/y"]) == 1.0
    assert "b/y" in made.read(Standing(breakers=["b/y"]), NOW).says
    assert "and 2 more" in made.read(Standing(breakers=list("abcde")), NOW).says
    assert value(made) == 0.0


def purse(name: str, spent: float, limit: float = 10.0) -> Purse:
    return Purse(name, round(limit * USD), round(spent * USD), 0, None)


def test_the_fullest_budget_counts_and_those_above_are_named():
    purses = [purse("key ada", 9), purse("team x", 8.5), purse("key bob", 1), purse("key none", 0, 0)]
    made = watch("budget")
    assert value(made, purses=purses) == 0.9
    said = made.read(Standing(purses), NOW).says
    assert said == "Spent: key ada: 90% of 10.00 USD; team x: 85% of 10.00 USD."
    assert value(made) is None


def test_disk_and_store_are_as_they_stand():
    assert value(watch("disk"), disk_used=0.93) == 0.93
    assert value(watch("disk")) is None
    assert value(watch("store"), healthy=False) > THRESHOLDS["store"]
    assert value(watch("store"), healthy=True) == 0.0


def test_what_comes_from_outside_is_bounded():
    made = watch("error_rate", *[failed(code="x" * 1_000 + str(n)) for n in range(1_000)])
    said = made.read(Standing(), NOW).says
    assert len(said) < 500
    (only,) = made._window.all(NOW)
    assert len(only.causes) <= 50


def look(rule: AlertRule, *looks: tuple[float, bool]) -> list[tuple[float, str]]:
    alert = Alert(rule)
    return [(now, said) for now, breached in looks if (said := alert.look(breached, now)) is not None]


RULE = AlertRule("r", "store", 0, after=60, repeat=600)


def test_an_alert_begins_and_ends_when_it_was_so_for_a_while():
    looks = [(t, 30 <= t < 300) for t in range(0, 600, 10)]
    assert look(RULE, *looks) == [(90, "fires"), (360, "recovered")]


def test_what_comes_and_goes_is_not_told():
    assert look(RULE, *[(t, t % 60 < 30) for t in range(0, 3_000, 10)]) == []


def test_what_goes_on_is_told_again():
    assert look(RULE, *[(t, True) for t in range(0, 1_500, 10)]) == [
        (60, "fires"),
        (660, "still"),
        (1_260, "still"),
    ]
    once = AlertRule("r", "store", 0, after=0, repeat=0)
    assert look(once, *[(t, True) for t in range(0, 100_000, 100)]) == [(0, "fires")]


@given(st.lists(st.booleans(), max_size=200), st.sampled_from([0.0, 10.0, 60.0]))
def test_fires_and_recovered_take_turns(breaches, after):
    rule = AlertRule("r", "store", 0, after=after, repeat=0)
    said = [what for _, what in look(rule, *[(10.0 * n, b) for n, b in enumerate(breaches)])]
    assert said == ["fires", "recovered"] * (len(said) // 2) + ["fires"] * (len(said) % 2)


@pytest.mark.parametrize(
    ("seconds", "said"), [(90, "90 s"), (300, "5 min"), (14_400, "4 h"), (86_400, "1 d")]
)
def test_times_are_said_as_people_say_them(seconds, said):
    assert span(seconds) == said
