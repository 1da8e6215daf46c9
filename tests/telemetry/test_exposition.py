"""Metrics as text: in both formats, whole, and without keeping the loop."""

import asyncio

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from penstock.telemetry.exposition import PART, Exposition

OPEN = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"


def source():
    yield CounterMetricFamily("calls", "Calls.", 3)
    yield GaugeMetricFamily("open", "Open.", 2)


async def test_both_formats_say_the_same():
    exposition = Exposition(source, slow=[lambda: [GaugeMetricFamily("room", "Room.", 1)]])
    found = []
    for accept, parse in (("", plain), (OPEN, open_metrics)):
        body, content_type = await exposition.render(accept)
        assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
        families = {family.name: family for family in parse(body.decode())}
        found.append({name: families[name].samples[0].value for name in ("calls", "open", "room")})
        assert "process_resident_memory_bytes" in families
        assert body.count(b"# EOF") == (1 if accept else 0)
    assert found[0] == found[1] == {"calls": 3, "open": 2, "room": 1}


async def test_a_family_that_is_printed_in_parts_is_one():
    def large():
        calls = CounterMetricFamily("calls", "Calls.", labels=["n"])
        for number in range(2 * PART + 1):
            calls.add_metric([f"# {number}"], number)
        yield calls

    for accept, parse in (("", plain), (OPEN, open_metrics)):
        body, _ = await Exposition(large).render(accept)
        (calls,) = [family for family in parse(body.decode()) if family.name == "calls"]
        assert [sample.value for sample in calls.samples] == list(range(2 * PART + 1))
        assert body.count(b"# TYPE calls") == 1


async def test_the_loop_goes_on_between_families():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def many():
        for number in range(100):
            yield GaugeMetricFamily(f"gauge_{number}", "One of many.", 1)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        await Exposition(many).render("")
        counting.cancel()
    assert turns >= 100
