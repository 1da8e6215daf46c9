"""GET /metrics: what a scraper finds after some traffic, and who may look."""

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.assembly.system import reassemble
from tests.server.conftest import config

ADMIN, APP = "the key of an administrator", "the key of an application"
KEYS = {"root": {"key": ADMIN, "admin": True}, "app": APP}
CHAT = {"model": "demo-echo", "messages": [{"role": "user", "content": "hello"}]}


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def scraped(client, **headers):
    """What is there to be scraped, as ``{name: {label values, by the labels' names: value}}``."""
    response = await client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


async def test_traffic_is_seen(gateway):
    assert (await gateway.client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert (await gateway.client.post("/v1/chat/completions", json=CHAT | {"model": "no"})).status_code == 404
    found = await scraped(gateway.client)
    assert found["penstock_calls_total"] == {
        ("demo-echo", "started", "openai_chat"): 1,
        ("other", "refused", "openai_chat"): 1,
    }
    assert found["penstock_refusals_total"] == {("model_not_found", "openai_chat"): 1}
    assert found["penstock_streams_ended_total"] == {("demo-echo", "openai_chat", "completed"): 1}
    assert found["penstock_breaker_state"] == {("demo/demo-echo",): 0}
    assert found["penstock_gap_seconds_count"][("demo/demo-echo",)] >= 0
    for name in ("penstock_ready", "penstock_store_healthy"):
        assert found[name] == {(): 1}
    for name in ("penstock_readers", "penstock_reader_lag_entries", "penstock_queue_waiting"):
        assert found[name] == {(): 0}
    assert found["penstock_connections"][()] >= 1
    assert found["penstock_connections_refused_total"] == {("address",): 0, ("total",): 0}
    assert len(found["penstock_build_info"]) == 1
    assert found["process_resident_memory_bytes"][()] > 0
    assert "penstock_loop_lag_seconds_bucket" in found


class TestOnDisk:
    @pytest.fixture
    def settings(self, tmp_path):
        store = {"kind": "embedded", "path": str(tmp_path)}
        retry = {"tries": 1}
        return config(store=store, retry=retry, providers={"near": {"base_url": "http://127.0.0.1:9/v1"}})

    async def test_a_disk_and_connections_are_seen(self, gateway):
        asked = CHAT | {"model": "near/m"}
        assert (await gateway.client.post("/v1/chat/completions", json=asked)).status_code == 502
        found = await scraped(gateway.client)
        assert found["penstock_commit_seconds_count"][()] > 0
        assert found["penstock_journal_bytes"][()] > 0
        assert found["penstock_disk_free_bytes"][()] > 0
        assert found["penstock_upstream_connections"][("near", "idle")] == 0
        assert found["penstock_attempt_failures_total"][("upstream_unreachable", "near")] >= 1
        assert found["penstock_stream_failures_total"] == {
            ("upstream_unreachable", "upstream", "near/*", "near"): 1
        }


async def test_a_thousand_names_of_models_make_no_label(gateway):
    for number in range(50):
        asked = CHAT | {"model": f"x-{number}"}
        assert (await gateway.client.post("/v1/chat/completions", json=asked)).status_code == 404
    assert (await scraped(gateway.client))["penstock_calls_total"] == {
        ("other", "refused", "openai_chat"): 50
    }


def reading(access):
    return config(keys=KEYS, telemetry={"metrics": {"access": access}})


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        (reading("admin"), bearer(ADMIN), 200),
        (reading("admin"), bearer(APP), 403),
        (reading("admin"), {}, 401),
        (reading("loopback"), {}, 200),
        (reading("loopback"), {"x-forwarded-for": "203.0.113.7"}, 401),
        (reading("loopback"), {"forwarded": "for=203.0.113.7"}, 401),
        (reading("open"), {"x-forwarded-for": "203.0.113.7"}, 200),
    ],
)
async def test_who_may_look(gateway, headers, status):
    assert (await gateway.client.get("/metrics", headers=headers)).status_code == status


async def test_without_keys_it_is_for_this_machine_alone(gateway):
    assert (await gateway.client.get("/metrics")).status_code == 200
    refused = await gateway.client.get("/metrics", headers={"host": "evil.example"})
    assert refused.json()["error"]["code"] == "host_not_allowed"
    refused = await gateway.client.get("/metrics", headers={"x-forwarded-for": "203.0.113.7"})
    assert refused.json()["error"]["code"] == "admin_required"


@pytest.mark.parametrize("settings", [config(dashboard=False, telemetry={"metrics": {"enabled": False}})])
async def test_metrics_that_are_switched_off_are_not_there_and_nobody_observes(gateway):
    response = await gateway.client.get("/metrics")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert gateway.system.gateway._observe is None


@pytest.mark.parametrize("settings", [config(keys=KEYS, telemetry={"metrics": {"by_key": True}})])
async def test_figures_by_key_are_of_the_keys_in_the_configuration(gateway):
    made = await gateway.client.post("/v1/admin/keys", json={"name": "new"}, headers=bearer(ADMIN))
    for key in (APP, made.json()["key"]):
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT, headers=bearer(key))
        assert answer.status_code == 200
    found = await scraped(gateway.client, **bearer(ADMIN))
    assert found["penstock_key_streams_total"] == {("app", "completed"): 1, ("other", "completed"): 1}


@pytest.mark.parametrize("settings", [config(keys=KEYS, telemetry={"metrics": {"by_key": True}})])
async def test_figures_by_key_follow_a_reload(gateway, settings):
    def counted(found):
        return {key for key, _ in found.get("penstock_key_streams_total", {})}

    async def ask(key):
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT, headers=bearer(key))
        assert answer.status_code == 200

    await ask(APP)
    assert counted(await scraped(gateway.client, **bearer(ADMIN))) == {"app"}
    later = "the key of another application"
    keys = {"root": settings.keys["root"], "later": later}
    await reassemble(gateway.system, msgspec.structs.replace(settings, keys=keys), {}, gateway.system.parts)
    await ask(later)
    assert counted(await scraped(gateway.client, **bearer(ADMIN))) == {"later"}
