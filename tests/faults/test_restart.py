"""Answers that outlive their process: killed or stopped in the middle, taken up by the next one.

Real processes, real SIGKILLs; the text must be the one that an undisturbed gateway gives, once.
"""

import asyncio
import json
import secrets
from pathlib import Path

import pytest

from tests.faults import doomed
from tests.faults.process import Gateway, eventually
from tests.faults.readers import Ledger, Reader, agree, check, whole
from tests.server.raw import request

SCRIPT = {"tokens": 40, "tokens_per_second": 150, "first_token_delay": 0}
TARGET = {"provider": "demo", "model": "demo-long"}
MODELS = {
    "durable": {"targets": [TARGET], "on_restart": "continue"},
    "told": {"targets": [{**TARGET, "continuation": "prompt"}], "on_restart": "continue"},
    "mortal": [TARGET],
    "unable": {"targets": [{**TARGET, "continuation": "none"}], "on_restart": "continue"},
}
SECRET = "Wanderdüne"


def asking(model: str = "durable", *, dialect: str = "", **script: object) -> dict:
    message = {"role": "user", "content": f"Tell me of a {SECRET} {secrets.token_hex(4)}"}
    body = {"model": model, "messages": [message], "penstock_script": {**SCRIPT, **script}}
    return {"request": body}


def gateway_in(folder: Path, **settings: object) -> Gateway:
    return Gateway(folder, models=MODELS, **settings)


class Client:
    """Asks for an answer and reads it to its end, through whatever happens to the gateway."""

    def __init__(self, gateway: Gateway, group: asyncio.TaskGroup, body: dict) -> None:
        self.gateway = gateway
        self.ledger = Ledger()
        self.reader = Reader(gateway, self.ledger, create=body, key=secrets.token_hex(8))
        self.task = group.create_task(self.reader.follow())

    async def has(self, entries: int) -> None:
        await eventually(lambda: self.reader.position >= entries)

    async def ended(self) -> dict:
        await self.task
        return await check(self.gateway, self.ledger, self.reader.stream)

    @property
    def events(self) -> list[dict]:
        return [json.loads(data) for _, data in self.ledger.streams[self.reader.stream].values()]

    @property
    def text(self) -> str:
        return "".join(event.get("delta", "") for event in self.events if event["type"] == "text")


def text_of(log: list[tuple[bytes, bytes]]) -> str:
    events = [json.loads(line) for name, line in log if name == b"delta"]
    return "".join(event["delta"] for event in events if event["type"] == "text")


async def undisturbed(gateway: Gateway, body: dict) -> str:
    """The text of the same request, which nothing befell."""
    answer = await gateway.call("POST", "/v1/streams", body, Prefer="respond-async")
    stream = answer.json["stream"]
    log = await whole(gateway, stream)
    assert json.loads(log[-1][1])["status"] == "completed"
    return text_of(log)


def seams(client: Client) -> list[tuple[str, str, str]]:
    found = [event for event in client.events if event["type"] == "seam"]
    return [(event["mode"], event.get("target", ""), event["code"]) for event in found]


RESUMED = ("resumed", "", "gateway_restarted")
EARLY = {"first_token_delay": 0.5}
"""The process is killed before such an answer begins."""


@pytest.mark.parametrize("kills", [1, 2])
async def test_an_answer_is_gone_on_with_after_its_process_was_killed(tmp_path, kills):
    with gateway_in(tmp_path) as gateway:
        await gateway.start()
        bodies = [asking("durable", tokens=40 * kills), asking("told", tokens=40 * kills), asking(**EARLY)]
        async with asyncio.TaskGroup() as group:
            prefilled, told, early = clients = [Client(gateway, group, body) for body in bodies]
            for kill in range(kills):
                for client in (prefilled, told):
                    await client.has(15 * (kill + 1))
                gateway.kill()
                await gateway.start()
            ends = [await client.ended() for client in clients]
            assert {end["status"] for end in ends} == {"completed"}
            for client, body in zip(clients, bodies, strict=True):
                assert client.text == await undisturbed(gateway, body)
        assert seams(prefilled) == [RESUMED, ("prefill", "demo/demo-long", "gateway_restarted")] * kills
        assert seams(told) == [RESUMED, ("prompt", "demo/demo-long", "gateway_restarted")] * kills
        assert seams(early)[:1] == [RESUMED]
        told_apart(ends[0], kills)
        await gateway.stop()
        assert not [line for line in gateway.log() if line["level"] in ("error", "critical")]


def told_apart(end: dict, kills: int) -> None:
    """Check that what each life's attempt used stands by itself."""
    *before, after = end["history"]
    assert [(use["target"], use["code"]) for use in before] == [
        ("demo/demo-long", "gateway_restarted")
    ] * kills
    for use in before:
        assert use["usage"]["estimated"] is True
        assert use["usage"]["output_tokens"] > 0
    assert "code" not in after
    assert after["usage"] == end["usage"]
    assert end["timing"]["total_ms"] >= after["ended_ms"] > after["began_ms"] > 0


async def test_an_answer_that_was_done_but_for_its_end_is_completed_by_the_next_process(tmp_path):
    """The process dies on the closing record: the model had finished, and readers know."""
    with gateway_in(tmp_path, program=(doomed.__file__,)) as gateway:
        await gateway.start(PENSTOCK_DOOM="closing:half/1")
        body = asking(tokens=20, tokens_per_second=500)
        async with asyncio.TaskGroup() as group:
            client = Client(gateway, group, body)
            await eventually(lambda: not gateway.alive)
            await gateway.start()
            end = await client.ended()
            assert end["status"] == "completed"
            assert client.text == await undisturbed(gateway, body)


async def test_an_answer_that_is_not_to_be_gone_on_with_is_interrupted(tmp_path):
    with gateway_in(tmp_path) as gateway:
        await gateway.start()
        async with asyncio.TaskGroup() as group:
            clients = [Client(gateway, group, asking(model)) for model in ("mortal", "unable")]
            for client in clients:
                await client.has(5)
            gateway.kill()
            await gateway.start()
            for client in clients:
                end = await client.ended()
                assert (end["status"], end["code"], end["retryable"]) == (
                    "interrupted", "gateway_restarted", True,
                )  # fmt: skip


# --- what is at rest -----------------------------------------------------------------------------------


def at_rest(gateway: Gateway, words: str = SECRET) -> bool:
    needles = (words.encode(), json.dumps(words)[1:-1].encode())
    contents = [file.read_bytes() for file in gateway.data.rglob("*") if file.is_file()]
    return any(needle in content for content in contents for needle in needles)


@pytest.mark.parametrize(
    ("settings", "kept"), [({}, True), ({"routes": {"streams": {"at_rest": "memory"}}}, False)]
)
async def test_a_request_is_at_rest_only_where_its_answer_is_gone_on_with(tmp_path, settings, kept):
    with gateway_in(tmp_path, **settings) as gateway:
        await gateway.start()
        for model, headers in (
            ("mortal", {}),
            ("durable", {"Stream-On-Disconnect": "cancel"}),
            ("durable", {}),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(request("POST", "/v1/streams", asking(model, tokens=500), **headers))
            await reader.readuntil(b"event: delta")
            assert at_rest(gateway) is (kept and model == "durable" and not headers)
            writer.close()
        assert {file.stat().st_mode & 0o777 for file in gateway.data.rglob("*") if file.is_file()} == {0o600}


async def test_a_request_is_gone_from_the_disk_when_its_stream_is_erased_or_has_ended(tmp_path):
    with gateway_in(tmp_path) as gateway:
        await gateway.start()
        for _ in range(2):
            body = asking(tokens=500)
            stream = (await gateway.call("POST", "/v1/streams", body, Prefer="respond-async")).json["stream"]
            assert at_rest(gateway)
            await gateway.call("POST", f"/v1/streams/{stream}/cancel")
        await gateway.call("DELETE", f"/v1/streams/{stream}")
        await gateway.stop()  # which seals everything and lets go of the journal
        assert not at_rest(gateway)


async def test_after_a_power_failure_nothing_is_gone_on_with_unless_it_was_stored_for_that(tmp_path):
    with gateway_in(tmp_path) as gateway:
        await gateway.start()
        async with asyncio.TaskGroup() as group:
            client = Client(gateway, group, asking(tokens=300))
            await client.has(5)
            gateway.kill()
            writer = gateway.data / "writer.json"
            last = json.loads(writer.read_text())
            assert last["boot_id"]
            writer.write_text(json.dumps({**last, "boot_id": "of another start of the machine"}))
            await gateway.start()
            # The readers' cursor is of before, and holds as far as the log goes.
            await client.task
        end = json.loads((await whole(gateway, client.reader.stream))[-1][1])
        assert (end["status"], end["code"]) == ("interrupted", "gateway_restarted")
        assert not gateway.log("taken_up")


# --- stopped in good order -----------------------------------------------------------------------------


async def test_what_is_not_done_by_the_deadline_is_handed_over_to_the_next_process(tmp_path):
    with gateway_in(tmp_path, listen={"drain": 0.3}) as gateway:
        await gateway.start()
        long, short = asking(tokens=200, tokens_per_second=200), asking(tokens=20, tokens_per_second=200)
        async with asyncio.TaskGroup() as group:
            clients = [Client(gateway, group, body) for body in (long, short)]
            mortal = Client(gateway, group, asking("mortal", tokens=400))
            for client in (*clients, mortal):
                await client.has(3)
            await gateway.stop()
            await gateway.start()
            for client in clients:
                assert (await client.ended())["status"] == "completed"
            assert [len(seams(client)) for client in clients] == [2, 0]
            end = await mortal.ended()
            assert (end["status"], end["code"]) == ("interrupted", "gateway_shutdown")
            assert clients[0].text == await undisturbed(gateway, long)
        await agree(gateway, clients[0].reader.stream, await whole(gateway, clients[0].reader.stream))
