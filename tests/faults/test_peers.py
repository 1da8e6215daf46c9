"""What clients do to a gateway: freeze in the middle of a stream, die without a word."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.clients.upstream import answering
from tests.faults.process import PATIENCE, Gateway, eventually
from tests.faults.readers import Ledger, Reader, check

FROZEN = Path(__file__).with_name("frozen.py")
READERS = 60
SEND_TIMEOUT = 8.0  # long enough for a slow machine to write what queues would show
MARGIN = 16 << 20
"""Bytes of memory that may come and go whatever readers do: the unsealed tail, buffers, the allocator."""


def piped(*command: str | Path) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE)


async def test_frozen_readers_cost_their_buffers_and_are_cut_off_while_their_stream_runs_on(tmp_path):
    script = {"tokens": 100_000, "tokens_per_second": 6_000, "first_token_delay": 0}
    message = {"role": "user", "content": "Tell me"}
    request = {"model": "demo-long", "messages": [message], "penstock_script": script}
    ledger = Ledger()
    with Gateway(tmp_path, listen={"send_timeout": SEND_TIMEOUT}) as gateway:
        await gateway.start()
        creator = Reader(gateway, ledger, create={"request": request})
        async with asyncio.TaskGroup() as group:
            task = group.create_task(creator.follow())
            await eventually(lambda: creator.position > 1_000)
            alone = gateway.connections
            path = f"/v1/streams/{creator.stream}/events"
            with piped(sys.executable, FROZEN, str(gateway.port), path, str(READERS)) as others:
                try:
                    await asyncio.to_thread(others.stdout.readline)
                    others.send_signal(signal.SIGSTOP)
                    before, frozen_at = gateway.memory, creator.position
                    assert gateway.connections == alone + READERS
                    most = 0

                    def cut_off() -> bool:
                        nonlocal most
                        most = max(most, gateway.memory)
                        return gateway.connections == alone

                    await eventually(cut_off, "frozen readers were not cut off")
                    assert creator.end is None, "the stream was to run on"
                    cut_at = creator.position
                    others.send_signal(signal.SIGCONT)
                    assert await asyncio.to_thread(others.stdout.readline) == b"cut\n"
                    await gateway.call("POST", f"/v1/streams/{creator.stream}/cancel")
                finally:
                    others.kill()
            await task
            most = max(most, gateway.memory)
        entries = list(ledger.streams[creator.stream].values())
        waiting = READERS * sum(len(data) for _, data in entries[frozen_at:cut_at])
        assert waiting > 2 * MARGIN, "queues for all of them would not show"
        assert most - before < MARGIN
        # They may come back, as any reader may.
        late = Reader(gateway, ledger, stream=creator.stream, after="1000")
        await late.follow()
        assert (await check(gateway, ledger, creator.stream))["status"] == "cancelled"


async def test_client_that_is_killed_in_a_plain_chat_stops_the_provider(tmp_path):
    body = {"model": "real/endless", "stream": True, "messages": [{"role": "user", "content": "Go on"}]}
    with (
        answering() as upstream,
        Gateway(tmp_path, providers={"real": {"base_url": f"{upstream.url}/v1"}}) as gateway,
    ):
        await gateway.start()
        url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
        with piped(
            "curl", "-sN", url, "-H", "content-type: application/json", "-d", json.dumps(body)
        ) as client:
            for _ in range(10):
                assert await asyncio.to_thread(client.stdout.readline)
            assert not upstream.asked[0].left.is_set()
            client.kill()
            assert await asyncio.to_thread(upstream.asked[0].left.wait, PATIENCE)
        (closed,) = await eventually(lambda: gateway.log("stream_closed"))
        assert (closed["status"], closed["code"]) == ("cancelled", "client_disconnected")
