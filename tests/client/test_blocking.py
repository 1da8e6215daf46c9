"""The client without ``await``: in notebooks, threads, with early leave, and after a fork or an end."""

import asyncio
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.assembly.system import assemble
from penstock.client import Client, Failed, Refused
from tests.server.conftest import config, running


@pytest.fixture
def settings():
    return config()


@pytest.fixture
async def gateway(settings):
    system = await asyncio.to_thread(assemble, settings, {})
    async with running(system, settings) as served:
        yield served


async def elsewhere(script, gateway):
    """Run ``script`` as a program of somebody else, with all warnings as errors; return what it prints."""
    program = textwrap.dedent(script).replace("URL", repr(gateway.url))
    command = [sys.executable, "-W", "error", "-c", program]

    def run():
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = await asyncio.to_thread(run)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_who_leaves_before_the_end_leaves_nothing_behind(gateway, transport):
    script = f"""
        import gc, threading
        from penstock.client import Client

        with Client(URL, transport="{transport}") as client:
            for piece in client.ask("one two three", "demo-echo").text():
                break
            with client.ask("one two three", "demo-echo") as answer:
                for entry in answer:
                    break
                print(len(list(answer)) > 0)
            with client.ask("one two three", "demo-echo") as answer:
                for entry in answer:
                    break
            print(client.ask("again", "demo-echo").end().status)
            try:
                answer.end()
            except RuntimeError as error:
                print(error)
        client.close()
        gc.collect()
        print(threading.active_count())
    """
    assert (await elsewhere(script, gateway)).splitlines() == [
        "True",
        "completed",
        "this answer is not read any more: it was closed before its end",
        "1",
    ]


async def test_it_works_where_a_loop_runs_as_in_a_notebook(gateway):
    script = """
        import asyncio
        from penstock.client import Client

        async def cell():
            with Client(URL) as client:
                print("".join(client.ask("in a cell", "demo-echo").text()))

        asyncio.run(cell())
    """
    assert await elsewhere(script, gateway) == "in a cell\n"


async def test_the_thread_ends_with_its_last_user(gateway):
    script = """
        import gc, threading
        from penstock.client import Client

        client = Client(URL)
        answer = client.ask("one line", "demo-echo")
        del client
        print(answer.end().status, threading.active_count())
        answer.close()
        del answer
        gc.collect()
        print(threading.active_count())
    """
    program = await elsewhere(script, gateway)
    assert program == "completed 2\n1\n"


async def test_threads_share_one_client(gateway):
    def use(client, number):
        return "".join(client.ask(f"number {number}", "demo-echo").text())

    def together():
        with Client(gateway.url, transport="websocket") as client, ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda number: use(client, number), range(12)))

    assert await asyncio.to_thread(together) == [f"number {n}" for n in range(12)]


async def test_what_cannot_be_is_said_and_does_not_hang(gateway):
    def together():
        client = Client(gateway.url)
        said = []
        answer = client.ask("x", "demo-echo")

        def calls_back(_):
            with pytest.raises(RuntimeError) as refused:
                answer.stop()
            said.append(str(refused.value))

        answer.on_open = calls_back
        answer.end()
        client.close()
        client.close()
        with pytest.raises(RuntimeError) as refused:
            client.models()
        return [*said, str(refused.value)]

    assert await asyncio.to_thread(together) == [
        "a handler cannot call the client that called it",
        "the client is closed, or was made before this process was forked",
    ]


async def test_a_client_is_not_of_use_in_a_forked_process(gateway):
    script = """
        import os, warnings
        from penstock.client import Client

        warnings.simplefilter("ignore", DeprecationWarning)
        client = Client(URL)
        client.models()
        if (pid := os.fork()) == 0:
            try:
                client.models()
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        client.close()
    """
    assert "before this process was forked" in await elsewhere(script, gateway)


async def test_ctrl_c_interrupts_a_read_and_the_client_goes_on(gateway):
    script = """
        import os, signal, threading
        from penstock.client import Client

        with Client(URL) as client:
            answer = client.ask("x", "demo-stall")
            answer.on_open = lambda _: os.kill(os.getpid(), signal.SIGINT)
            try:
                answer.end()
            except KeyboardInterrupt:
                print("interrupted")
            print(client.ask("again", "demo-echo").end().status)
    """
    assert await elsewhere(script, gateway) == "interrupted\ncompleted\n"


async def test_all_that_goes_wrong_is_one_kind_of_error_with_a_code(gateway):
    def codes():
        found = []
        with Client(gateway.url) as client:
            try:
                client.ask("x", "no-such-model").end()
            except Failed as failed:
                found.append((type(failed), failed.code))
            try:
                list(client.ask("x", "demo-error").text())
            except Failed as failed:
                found.append((type(failed).__name__, bool(failed.code)))
        with Client("http://127.0.0.1:1") as client:
            try:
                client.models()
            except Failed as failed:
                found.append((type(failed).__name__, failed.code))
        return found

    assert await asyncio.to_thread(codes) == [
        (Refused, "model_not_found"),
        ("NotCompleted", True),
        ("Unreachable", "unreachable"),
    ]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_headers_of_ones_own_are_sent(transport):
    heads = []
    got = asyncio.Event()

    async def serve(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        got.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def ask():
        with (
            Client(
                f"http://127.0.0.1:{port}",
                transport=transport,
                headers={"X-Team": "search", "User-Agent": "ours"},
            ) as client,
            pytest.raises(Refused),
        ):
            client.ask("x", "demo").end()

    try:
        await asyncio.to_thread(ask)
        await got.wait()
    finally:
        server.close()
        await server.wait_closed()
    assert "x-team: search" in heads[0]
    assert "user-agent: ours" in heads[0]
