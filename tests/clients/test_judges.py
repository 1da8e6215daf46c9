"""Real clients as judges: every one, in old and new versions, before one gateway and one provider's whims.

What they must see stands in `tests.clients.judges.table`, and from there in docs/compatibility.md.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients import node, past
from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, Gateway, serving
from tests.clients.judges.table import CLIENTS, COLUMNS, wrong
from tests.clients.upstream import Upstream, answering

ROOT = Path(__file__).parents[2]
FOREIGN = ("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "OLLAMA_", "LANG", "PYTHONPATH", "NODE_")


PAST = ("openai_python", "anthropic_python")
NEWEST = (*PAST, "google_python", "ollama_python", "langchain_python")


@contextmanager
def standing(folder: Path) -> Iterator[tuple[Gateway, Upstream]]:
    """A provider, and a gateway that tries once and does not wait before its status line goes out."""
    more = {"retry": {"tries": 1, "tries_in_all": 1}, "listen": {"commit_after": PATIENCE, "last_words": 2.0}}
    with answering() as upstream, serving(folder, settings(upstream, **more)) as gateway:
        yield gateway, upstream


def judged(url: str, *judges: str, packages: Path | None = None) -> dict:
    """Let judges in Python ask, with the packages in a folder before our own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ |= {"PENSTOCK_URL": url}
    if packages:
        environ |= {"PENSTOCK_PAST": "1", "PYTHONPATH": str(packages)}
    command = [sys.executable, "-m", "tests.clients.judges.judging", *judges]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def judged_by_node(url: str) -> dict:
    """Let the judges in JavaScript ask."""
    node.modules()
    return json.loads(node.run("judges/all.mjs", PENSTOCK_URL=url, patience=150))


@pytest.mark.timeout(240)
def test_every_client_sees_what_the_table_says(tmp_path):
    with standing(tmp_path) as (gateway, upstream), ThreadPoolExecutor() as pool:
        juries = [
            pool.submit(judged, gateway.url, *PAST, packages=past.packages()),
            pool.submit(judged, gateway.url, *NEWEST),
            pool.submit(judged_by_node, gateway.url),
        ]
        seen = {row: ways for jury in juries for row, ways in jury.result().items()}
        assert set(seen) == {row for client in CLIENTS for row, _ in client.rows}
        complaints = [
            complaint
            for row, ways in seen.items()
            for way, kinds in ways.items()
            for column, names in COLUMNS.items()
            for kind in names
            if (complaint := wrong(row, way, column, kind, kinds[kind]))
        ]
        assert not complaints, "\n" + "\n".join(complaints)
        endless = [asked for asked in upstream.asked if asked.body["model"].startswith("endless")]
        assert len(endless) == sum(len(ways) for ways in seen.values())
        for asked in endless:
            assert asked.left.wait(PATIENCE), asked.body["model"]
