"""Moderators over HTTP: real endpoints that are asked, and what clients of each dialect are told."""

import asyncio
import hashlib
import hmac
import json
from contextlib import asynccontextmanager

import pytest

from penstock.policies.moderator import MAX_ANSWER_BYTES
from tests.server.conftest import config
from tests.server.test_filters import ask

NEVER = "violence"


class Endpoint:
    """An HTTP server that speaks OpenAI's moderation format, or the webhook's; and fails when told."""

    def __init__(self):
        self.asked = []
        self.heads = []
        self.status = 200
        self.answer = None
        self.url = ""

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.heads.append((head.decode(), body))
                self.asked.append(json.loads(body))
                answer = (
                    json.dumps(self._word(self.asked[-1])).encode() if self.answer is None else self.answer
                )
                writer.write(
                    b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n" % (self.status, len(answer)) + answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _word(self, asked):
        if "where" in asked:
            return {"allow": NEVER not in asked["text"], "reason": NEVER}
        flagged = NEVER in asked["input"]
        score = 0.9 if flagged else 0.1
        result = {"flagged": flagged, "categories": {NEVER: flagged}, "category_scores": {NEVER: score}}
        return {"id": "modr-1", "model": "m", "results": [result]}


@asynccontextmanager
async def listening():
    endpoint = Endpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint.url = f"http://127.0.0.1:{port}/v1/moderations"
    try:
        yield endpoint
    finally:
        server.close()


@pytest.fixture
async def endpoint():
    async with listening() as endpoint:
        yield endpoint


@pytest.fixture
def said():
    return {}


@pytest.fixture
def settings(endpoint, said):
    return config(
        moderators={"house": {"url": endpoint.url, "api_key": "sk-moderator", "input": False, **said}}
    )


def lines(answer):
    return answer.text.replace(" ", "")


@pytest.mark.parametrize(
    ("path", "name", "reason"),
    [
        ("/v1/chat/completions", "finish_reason", "content_filter"),
        ("/v1/messages", "stop_reason", "refusal"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_blocked_answer_ends_with_the_reason_in_its_dialect(
    gateway, endpoint, path, name, reason, stream
):
    answer = await ask(gateway, path, "There was violence in it", stream=stream)
    assert answer.status_code == 200
    assert f'"{name}":"{reason}"' in lines(answer)
    snapshot = (await gateway.client.get(answer.headers["location"])).json()
    assert (snapshot["status"], snapshot["text"]) == ("completed", "")
    events = await gateway.client.get(answer.headers["location"] + "/events")
    assert NEVER not in answer.text + events.text
    assert "Authorization: Bearer sk-moderator".lower() in endpoint.heads[0][0].lower()


async def test_a_good_answer_is_whole(gateway, endpoint):
    answer = await ask(gateway, "/v1/chat/completions", "All is well here. " * 20)
    assert answer.json()["choices"][0]["message"]["content"] == "All is well here. " * 20
    assert len(endpoint.asked) >= 1
    assert "".join(asked["input"] for asked in endpoint.asked[:1]).startswith("All is well")


class TestRequests:
    @pytest.fixture
    def said(self):
        return {"input": True, "output": False}

    async def test_a_blocked_request_is_refused_and_asks_no_provider(self, gateway):
        refused = await ask(gateway, "/v1/chat/completions", "violence!")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
        assert "'house'" in refused.json()["error"]["message"]
        assert gateway.system.gateway.open_streams == 0

    async def test_a_good_one_is_answered(self, gateway, endpoint):
        assert (await ask(gateway, "/v1/chat/completions", "peace")).status_code == 200
        assert [asked["input"] for asked in endpoint.asked] == ["peace"]

    @pytest.mark.parametrize(
        ("status", "answer"),
        [
            (500, b"{}"),
            (404, b"{}"),
            (200, b"<html>"),
            (200, b'{"results":[]}'),
            (200, b" " * (MAX_ANSWER_BYTES + 1)),
        ],
        ids=["500", "404", "html", "empty", "endless"],
    )
    async def test_without_a_word_nothing_passes(self, gateway, endpoint, status, answer):
        endpoint.status, endpoint.answer = status, answer
        refused = await ask(gateway, "/v1/chat/completions", "peace")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "moderation_unavailable")
        assert refused.headers["retry-after"] == "5"
        assert len(endpoint.asked) == (3 if status == 500 else 1)


class TestOpen:
    @pytest.fixture
    def said(self):
        return {"input": True, "fail": "open"}

    async def test_without_a_word_everything_passes(self, gateway, endpoint):
        endpoint.status = 404
        answer = await ask(gateway, "/v1/chat/completions", "violence")
        assert answer.json()["choices"][0]["message"]["content"] == "violence"


class TestThresholds:
    @pytest.fixture
    def said(self):
        return {"input": True, "thresholds": {NEVER: 0.95}}

    async def test_the_operators_threshold_counts_and_not_the_endpoints_word(self, gateway):
        answer = await ask(gateway, "/v1/chat/completions", "violence")
        assert answer.json()["choices"][0]["message"]["content"] == "violence"


class TestWebhook:
    @pytest.fixture
    def said(self):
        return {"kind": "webhook", "secret": "hush", "api_key": "", "input": True}

    async def test_it_is_asked_with_a_signature_and_may_refuse(self, gateway, endpoint):
        refused = await ask(gateway, "/v1/chat/completions", "violence")
        assert refused.json()["error"]["code"] == "content_filter"
        head, body = endpoint.heads[0]
        signed = next(line for line in head.splitlines() if line.lower().startswith("penstock-signature:"))
        time, mac = (part.split("=")[1] for part in signed.split(": ")[1].split(","))
        assert mac == hmac.new(b"hush", f"{time}.".encode() + body, hashlib.sha256).hexdigest()
        (asked,) = endpoint.asked
        assert (asked["where"], asked["text"], asked["context"], asked["model"]) == (
            "input",
            NEVER,
            "",
            "demo-echo",
        )

    async def test_an_answer_is_asked_about_in_windows(self, gateway, endpoint):
        answer = await ask(gateway, "/v1/chat/completions", "peace " * 90, stream=True)
        assert '"finish_reason":"stop"' in lines(answer)
        texts = [asked["text"] for asked in endpoint.asked if asked["where"] == "output"]
        assert "".join(texts) == "peace " * 90
