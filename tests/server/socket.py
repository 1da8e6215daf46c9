"""A client of ``/v1/ws`` for tests: messages out and in as dictionaries, on the `websockets` library."""

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.following import Following

PATIENCE = 30.0


def ask(content, model="demo-echo", **more):
    """What a create says of a generation."""
    return {"request": {"model": model, "messages": [{"role": "user", "content": content}], **more}}


class Client:
    """One socket. `take` gives what comes next; `until` everything up to a message."""

    def __init__(self, connection):
        self.connection = connection

    async def send(self, type, **members):
        await self.connection.send(json.dumps({"type": type, **members}, separators=(",", ":")))

    async def take(self):
        async with asyncio.timeout(PATIENCE):
            return json.loads(await self.connection.recv())

    async def until(self, *types, rid=None):
        """Return the messages up to the first of ``types`` (under ``rid``, if that is given)."""
        taken = [await self.take()]
        while taken[-1]["type"] not in types or rid not in (None, taken[-1].get("rid")):
            assert taken[-1]["type"] != "err", taken[-1]
            taken.append(await self.take())
        return taken

    async def until_code(self, code):
        """Return the next error, which is this one."""
        while (message := await self.take())["type"] != "err":
            pass
        assert message["code"] == code
        return message

    async def closed(self):
        """Wait for the end; return the close code, and what came before it."""
        taken = []
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionClosed):
                while True:
                    taken.append(json.loads(await self.connection.recv()))
            await self.connection.wait_closed()
        return self.connection.close_code, taken


@asynccontextmanager
async def connected(gateway, *, token="", below="", **options):
    """Open a socket, of a gateway that is mounted ``below`` a path; with ``token``, say who it is."""
    options = {
        "subprotocols": ["penstock.v1+json"],
        "compression": None,
        "max_size": None,
        "max_queue": None,
        **options,
    }
    url = f"ws://127.0.0.1:{gateway.port}{below}/v1/ws"
    async with connect(url, proxy=None, **options) as connection:
        client = Client(connection)
        if token:
            await client.send("auth", token=token)
            assert (await client.take())["type"] == "authed"
        yield client


def text_of(messages, rid="1"):
    """The answer's text among ``messages``."""
    entries = [m["d"] for m in messages if m["type"] == "entry" and m["rid"] == rid]
    return "".join(entry["delta"] for entry in entries if entry["type"] == "text")


def verified(texts, rid="1"):
    """Follow raw messages as a client does; return the text, once order, count and digests are right."""
    following, lines, text = Following(rid), [], ""
    for raw in texts:
        for record in following.take(raw).applied:
            lines.append(record)
            entry = json.loads(record)
            text += entry["delta"] if entry["type"] == "text" else ""
    end = json.loads(lines.pop())
    assert following.state == "ended"
    assert end["entries"] == len(lines)
    assert end["sha256"] == hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
    assert end["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    return text
