"""The readers that are tortured: of browsers, of Node.js, and httpx-sse with the loop of its page.

Each takes jobs and returns results as `runAll` of tests/clients/js/readers.mjs does.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from httpx_sse import connect_sse

from penstock.client import AsyncClient
from penstock.client.addresses import Address, target_of
from tests.clients import node
from tests.clients.torture import chromium

SOCKET = "-websocket"
"""How the name ends of a reader on a WebSocket; all others read server-sent events."""
OURS = ("penstock", "penstock-websocket", "penstock-xhr", "penstock-durable-fetch")
CHROMIUM = (
    "EventSource", "sse.js", "penstock", "penstock-websocket", "fetch-event-source", "event-source-polyfill",
)  # fmt: skip
FOREIGN = ("eventsource", "event-source-polyfill", "fetch-event-source", "react-native-sse")
NODE = (*FOREIGN, *OURS)
PYTHON = ("penstock.client", "penstock.client-websocket")
LANES = 24
Job = dict[str, Any]
Result = dict[str, Any]


def by_node(
    name: str, jobs: Sequence[Job], expected: Mapping, folder: Path, lanes: int = 100
) -> list[Result]:
    """Run a reader of Node.js through ``jobs``."""
    node.modules()
    if name in OURS:
        node.client()
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"jobs": jobs, "expected": expected, "lanes": lanes}))
    options = ["--experimental-websocket"] if name.endswith(SOCKET) else []
    return json.loads(node.run(*options, "torture.mjs", name, str(file), patience=1_800))


def by_chromium(
    name: str, jobs: Sequence[Job], expected: Mapping, folder: Path, patience: float
) -> list[Result]:
    """Run a reader of browsers through ``jobs``: one page for each address, since a browser opens no more
    than six connections to any."""
    # With sixteen handshakes of WebSockets under way, Chromium waits seconds before each further one.
    lanes = 1 if name.endswith(SOCKET) else 12
    by_address: dict[str, list[Job]] = {}
    for job in jobs:
        by_address.setdefault(f"https://{urlsplit(job['url']).netloc}", []).append(job)
    work = [
        (
            f"{address}/torture.html",
            {"name": name, "jobs": share, "expected": expected, "options": {"lanes": lanes}},
        )
        for address, share in by_address.items()
    ]
    return [result for results in chromium.run(work, folder, patience) for result in results]


def by_httpx(jobs: Sequence[Job], expected: Mapping) -> list[Result]:
    """Run httpx-sse through ``jobs``."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)

    def one(job: Job) -> Result:
        texts, how = follow(client, job)
        exact = texts == expected[job["format"]]
        return {"run": job["run"], "how": how, "verified": False, "texts": None if exact else texts}

    with (
        httpx.Client(timeout=30, limits=limits) as client,
        ThreadPoolExecutor(LANES) as threads,
    ):
        return list(threads.map(one, jobs))


def by_penstock(name: str, jobs: Sequence[Job], expected: Mapping) -> list[Result]:
    """Run our own client through ``jobs``; it looks at order and digests by itself, and raises."""
    transport = "websocket" if name.endswith(SOCKET) else "sse"

    async def one(job: Job, lanes: asyncio.Semaphore) -> Result:
        target = target_of(job["url"], Address("")) if "post" not in job else None
        base = target.address.base if target else job["url"].removesuffix("/v1/streams")
        async with lanes, AsyncClient(base, transport=transport, wait=lambda _: 0.01) as client:
            if target is None:
                asked = json.loads(job["post"])["request"]
                answer = client.start(asked, idempotency_key=job["key"])
            else:
                answer = client.follow(target.stream)
            texts = [piece async for piece in answer.text()]
        exact = texts == expected[job["format"]]
        return {
            "run": job["run"],
            "how": answer.closed.status if answer.closed else "no end",
            "verified": answer.closed is not None,
            "texts": None if exact else texts,
        }

    async def run() -> list[Result]:
        lanes = asyncio.Semaphore(LANES)
        return await asyncio.gather(*(one(job, lanes) for job in jobs))

    return asyncio.run(run())


def follow(
    client: httpx.Client, job: Job, *, wait: Callable[[float], None] = time.sleep
) -> tuple[list[str], str]:
    """Read to the end and come back after every cut: the loop of httpx-sse's page, with what it lacks.

    That catches `httpx.ReadError` alone, but a connection that is closed early raises
    `RemoteProtocolError`, and one that was not made, `ConnectError`. A 204 says that there is no more.
    """
    texts: list[str] = []
    last_event_id, delay = "", 1.0
    named = {"text": "message", "json": "delta"}[job["format"]]
    method = "POST" if job.get("post") else "GET"
    while True:
        headers = {"Content-Type": "application/json"} if job.get("post") else {}
        if job.get("key"):
            headers["Idempotency-Key"] = job["key"]
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        try:
            with connect_sse(client, method, job["url"], headers=headers, content=job.get("post")) as source:
                if source.response.status_code == 204:
                    return texts, "204"
                source.response.raise_for_status()
                for sse in source.iter_sse():
                    last_event_id = sse.id
                    if sse.retry is not None:
                        delay = sse.retry / 1000
                    if sse.event in ("done", "fail"):
                        return texts, sse.event
                    if sse.event == named == "message":
                        texts.append(sse.data)
                    elif sse.event == named and (delta := sse.json())["type"] == "text":
                        texts.append(delta["delta"])
        except httpx.TransportError:
            wait(delay)
