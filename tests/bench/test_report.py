import json
from dataclasses import replace

import pytest

from bench.histogram import Histogram
from bench.load import Plan, Run, Target
from bench.report import IdleMemory, Results, Verdict, Window, table, verdicts
from bench.run import losses
from bench.systems import merged


def latency(ms: float) -> Histogram:
    histogram = Histogram()
    histogram.record(round(ms * 1e6))
    return histogram


def window(system: str, *, streams: int = 500, cpu_us: float = 10.0, p99_ms: float = 1.0) -> Window:
    return Window(
        system=system,
        streams=streams,
        tls=False,
        round=1,
        seconds=8.0,
        tokens=200_000,
        reads=200_000,
        cpu_s=cpu_us * 0.2,
        latency=latency(p99_ms),
        first_chunk=latency(10),
        last_late_median=0.0,
        last_late_max=0.01,
        pss_before=0,
        pss_start=500 * 20_480,
        pss_end=500 * 20_480,
        load_share=0.3,
        upstream_share=0.3,
        send_late_p99_ms=0.4,
        others_share=0.0,
        losses=(),
    )


def results(*windows: Window) -> Results:
    return Results({"cpu": "test", "date": "2026-01-01T00:00:00+00:00"}, {}, list(windows))


def outcomes(found: Results) -> dict[str, str]:
    return {verdict.budget: verdict.outcome for verdict in verdicts(found) if verdict.figure is not None}


@pytest.mark.parametrize(
    ("figure", "outcome"), [(2.0, "goal"), (2.25, "pass"), (2.26, "miss"), (None, "not measured")]
)
def test_a_verdict_tells_goal_bar_and_miss_apart(figure: float | None, outcome: str):
    assert Verdict("CPU", "×", 2.25, 2.0, figure).outcome == outcome


def test_cpu_is_held_against_nginx_of_the_same_run():
    found = results(window("nginx", cpu_us=10), window("penstock", cpu_us=24))
    assert outcomes(found)["CPU per token at 500 streams, against nginx"] == "miss"


def test_added_latency_is_what_is_left_after_the_direct_baseline():
    found = results(window("direct", p99_ms=1.0), window("penstock", p99_ms=5.9))
    assert outcomes(found)["p99 added to a token at 500 streams"] == "pass"


def test_idle_memory_has_a_budget_of_its_own_over_tls():
    found = results()
    found.idle = [
        IdleMemory("penstock", False, 1000, 30 * 1024),
        IdleMemory("penstock", True, 1000, 30 * 1024),
    ]
    assert outcomes(found) == {
        "memory per idle stream": "miss",
        "memory per idle stream, TLS upstream": "pass",
    }


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"load_share": 0.9, "upstream_share": 0.0}, "load generator was saturated"),
        ({"load_share": 0.0, "upstream_share": 0.9}, "upstream was saturated"),
        ({"load_share": 0.5, "upstream_share": 0.5}, "core of load generator and upstream"),
        ({"send_late_p99_ms": 6.0}, "upstream itself was late"),
        ({"losses": ("3 tokens lost",)}, "3 tokens lost"),
    ],
)
def test_figures_that_rest_on_a_bad_run_are_refused(change: dict[str, object], word: str):
    found = results(replace(window("nginx"), **change))
    assert found.cells() == {}
    assert word in found.refusals()[0]
    assert word in table(found)


def test_rounds_are_put_together_by_their_tokens():
    found = results(window("nginx", cpu_us=10), window("nginx", cpu_us=12, p99_ms=3))
    cell = found.cells()["nginx", 500, False]
    assert cell.cpu_us == pytest.approx(11)
    assert cell.latency.total == 2


def test_results_survive_being_written_and_read():
    found = results(window("direct"), window("nginx"), window("penstock", cpu_us=20))
    again = Results.from_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json()
    assert "2.00" in table(again)


def test_whatever_is_missing_from_a_load_is_a_loss():
    plan = Plan.of(streams=2, rate=50, ramp_s=0.1, warmup_s=0.1, seconds=0.2)
    run = Run(plan, Target("127.0.0.1", 1, "/", "chat", "bench", None), 1)
    run.completed, run.received, run.gaps = 1, 2 * plan.tokens - 3, 1
    assert losses(run.result()) == [
        "only 1 of 2 streams completed",
        "3 tokens lost",
        "1 tokens out of order",
    ]


def test_an_overlay_replaces_leaves_and_keeps_the_rest():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "e": 4}) == {
        "a": {"b": 9, "c": 2},
        "d": 3,
        "e": 4,
    }
