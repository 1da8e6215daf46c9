"""The readers that are tortured: those of Node.js and httpx-sse with the loop that its page recommends.

Each takes jobs and returns results as `runAll` of tests/clients/js/readers.mjs does.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

from tests.clients import node

NODE = ("eventsource", "event-source-polyfill", "fetch-event-source", "react-native-sse")
LANES = 24
Job = dict[str, Any]
Result = dict[str, Any]


def by_node(
    name: str, jobs: Sequence[Job], expected: Mapping, folder: Path, lanes: int = 100
) -> list[Result]:
    """Run a reader of Node.js through ``jobs``."""
    node.modules()
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"jobs": jobs, "expected": expected, "lanes": lanes}))
    return json.loads(node.run("torture.mjs", name, str(file), patience=1_800))


def by_httpx(jobs: Sequence[Job], expected: Mapping) -> list[Result]:
    """Run httpx-sse through ``jobs``."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)

    def one(job: Job) -> Result:
        texts, how = follow(client, job)
        exact = texts == expected[job["format"]]
        return {"run": job["run"], "how": how, "texts": None if exact else texts}

    with (
        httpx.Client(timeout=30, limits=limits) as client,
        ThreadPoolExecutor(LANES) as threads,
    ):
        return list(threads.map(one, jobs))


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
