"""What requests that are passed on use: in ledger, budgets, limits and metrics, by official SDKs."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.clients.gateway import PATIENCE, serving, wait_for

ROOT, APP, POOR, SLOW = "the key of root", "the key of app", "the key of poor", "the key of slow"

MODELS = ("embedder", "painter", "ears", "voice", "poorly", "slowly", "counted", "shown")
"""One for each test that counts, so that none counts another's."""

PICTURE = {"input_tokens": 50, "output_tokens": 4_000, "total_tokens": 4_050}
SPOKEN = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}

VECTORS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25] * 30_000}],
    "model": "m",
    "usage": {"prompt_tokens": 1_000, "total_tokens": 1_000},
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        said = self.rfile.read(int(self.headers["content-length"]))
        path = self.path.removeprefix("/v1/")
        if b"refuse" in said:
            self._answer(400, "application/json", b'{"error": {"message": "no", "code": "no"}}')
        elif b'"stream":true' in said.replace(b" ", b""):
            partial = {"type": "image_generation.partial_image", "b64_json": "A" * 200_000}
            done = {"type": "image_generation.completed", "b64_json": "A" * 200_000, "usage": PICTURE}
            events = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in (partial, done))
            self._answer(200, "text/event-stream", events.encode())
        elif path == "embeddings" and b"silent" in said:
            self._json({key: value for key, value in VECTORS.items() if key != "usage"})
        elif path == "embeddings":
            self._json(VECTORS)
        elif path == "audio/transcriptions":
            self._json({"text": "heard", "usage": {"type": "tokens", **SPOKEN}})
        elif path == "audio/speech":
            self._answer(200, "audio/mpeg", b"ID3" + bytes(1_000))
        else:
            self._json({"created": 1, "data": [{"b64_json": "A" * 300_000}], "usage": PICTURE})

    def do_GET(self):
        self._json({"object": "list", "data": []})

    def _json(self, body):
        self._answer(200, "application/json", json.dumps(body).encode())

    def _answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def providing():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with providing() as provider:
        settings = {
            "providers": {
                "other": {"base_url": f"http://127.0.0.1:{provider.server_port}/v1", "api_key": "k" * 20}
            },
            "models": {name: [{"provider": "other", "model": name}] for name in MODELS},
            "keys": {
                "root": {"key": ROOT, "admin": True},
                "app": APP,
                "poor": POOR,
                "slow": SLOW,
            },
            "prices": {"other/*": {"input": 10, "output": 20}},
            "budgets": [{"by": "key", "match": "poor", "usd": 0.005}],
            "limits": [{"by": "key", "match": "slow", "requests_per_minute": 2}],
        }
        with serving(tmp_path_factory.mktemp("used"), settings) as gateway:
            yield gateway


@contextmanager
def sdk(gateway, key=APP):
    with openai.OpenAI(base_url=gateway.api, api_key=key, max_retries=0, timeout=PATIENCE) as client:
        yield client


def sums(gateway, model):
    """What the ledger has of ``model``, once it has something."""
    headers = {"authorization": f"Bearer {ROOT}"}

    def asked():
        found = httpx.get(
            f"{gateway.api}/admin/usage",
            params={"by": "model", "model": model},
            headers=headers,
            timeout=PATIENCE,
        )
        return found.json()["data"]

    (found,) = wait_for(asked)
    return found


def used(gateway, model):
    found = sums(gateway, model)
    return found["input_tokens"], found["output_tokens"], round(found["cost_usd"], 6)


def test_each_kind_of_answer_is_paid_by_what_it_says_it_used(gateway):
    with sdk(gateway) as client:
        client.embeddings.create(model="embedder", input="Hello", encoding_format="float")
        client.images.generate(model="painter", prompt="a cat")
        events = list(client.images.generate(model="painter", prompt="a cat", stream=True))
        assert [event.type for event in events][-1] == "image_generation.completed"
        client.audio.transcriptions.create(model="ears", file=("a.wav", bytes(1_000)))
    assert used(gateway, "embedder") == (1_000, 0, 0.01)
    wait_for(lambda: used(gateway, "painter") == (100, 8_000, 0.161))
    assert used(gateway, "ears") == (14, 101, 0.00216)


def test_what_does_not_say_is_estimated_from_what_was_sent_and_marked(gateway):
    with sdk(gateway) as client:
        assert client.audio.speech.create(model="voice", voice="alloy", input="four" * 10).content
    found = sums(gateway, "voice")
    assert (found["input_tokens"], found["estimated"]) == (10, 1)


def test_who_has_spent_all_is_refused_here_as_well(gateway):
    with sdk(gateway, POOR) as client:
        client.embeddings.create(model="poorly", input="x", encoding_format="float")
        with pytest.raises(openai.APIStatusError) as refused:
            client.embeddings.create(model="poorly", input="x", encoding_format="float")
    assert (refused.value.status_code, refused.value.code) == (402, "budget_exceeded")


def test_counting_tokens_is_a_request_as_any_other(gateway):
    with (
        sdk(gateway, SLOW) as client,
        anthropic.Anthropic(base_url=gateway.url, api_key=SLOW, max_retries=0, timeout=PATIENCE) as claude,
    ):
        claude.messages.count_tokens(model="demo", messages=[{"role": "user", "content": "hello"}])
        client.embeddings.create(model="slowly", input="x", encoding_format="float")
        with pytest.raises(openai.RateLimitError):
            client.embeddings.create(model="slowly", input="x", encoding_format="float")
        with pytest.raises(anthropic.RateLimitError):
            claude.messages.count_tokens(model="demo", messages=[{"role": "user", "content": "hello"}])


def test_they_are_in_the_metrics_and_no_stream_is_open_for_them(gateway):
    with sdk(gateway) as client:
        client.embeddings.create(model="counted", input="x", encoding_format="float")
        client.embeddings.create(model="counted", input="silent", encoding_format="float")
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="counted", input="refuse", encoding_format="float")
    headers = {"authorization": f"Bearer {ROOT}"}
    text = httpx.get(f"{gateway.url}/metrics", headers=headers, timeout=PATIENCE).text
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["penstock_calls_total", "counted", "relay", "started"] >= 2
    assert found["penstock_streams_ended_total", "counted", "failed", "relay"] >= 1
    assert found["penstock_attempts_total", "first", "other/counted"] >= 2
    assert found["penstock_attempt_failures_total", "invalid_request", "other/counted"] >= 1
    assert found["penstock_tokens_total", "counted", "input", "other/counted"] >= 1_002
    assert found["penstock_stream_duration_seconds_count", "counted"] >= 2
    assert ("penstock_streams_open", "counted") not in found


def test_files_are_requests_and_cost_nothing(gateway):
    with sdk(gateway, ROOT) as client:
        client.files.list()
    headers = {"authorization": f"Bearer {ROOT}"}
    told = httpx.get(f"{gateway.api}/admin/usage?by=principal", headers=headers, timeout=PATIENCE).json()
    assert "root" not in {one["name"] for one in told["data"]}


def test_the_command_shows_them(gateway):
    with sdk(gateway) as client:
        client.embeddings.create(model="shown", input="x", encoding_format="float")
    sums(gateway, "shown")
    told = gateway.command("usage", "--by", "route", "--json", "--config", str(gateway.settings))
    assert told.returncode == 0, told.stderr
    assert "relay" in {one["name"] for one in json.loads(told.stdout)}
