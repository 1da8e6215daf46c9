"""A connection lost at any byte costs nothing: every reader ends with every event, once.

The cuts are real, by RST and by FIN, between the gateway and readers that people use, and what is told
apart is the client's doing from ours: a reader may lose an event only where its own code does.
"""

import functools
import itertools
import json
import random

import httpx
import pytest

from tests.clients.gateway import PATIENCE
from tests.clients.torture.answer import PIECES, compare, shown
from tests.clients.torture.cuts import ALL, SLACK, every, part, shape_of, some, whole
from tests.clients.torture.network import HEAD
from tests.clients.torture.readers import (
    CHROMIUM,
    NODE,
    OURS,
    PYTHON,
    SOCKET,
    by_chromium,
    by_httpx,
    by_node,
    by_penstock,
)
from tests.clients.torture.table import Row

SAMPLE = 30
SOME = 2_000
"""Cuts of a socket on which an answer is started, where the one from a log is cut at every byte."""
EXPECTED = {format: shown(PIECES, format) for format in ("text", "json")}
ROUTES = {
    "GET /stream": "text",
    "GET /stream?format=json": "json",
    "GET /v1/streams/{id}/events": "json",
    "POST /v1/streams": "json",
}
POSTERS = {*PYTHON, "fetch-event-source", "react-native-sse", "httpx-sse", "sse.js", *OURS}
VERIFYING = {"penstock", "penstock-xhr", "penstock-websocket", *PYTHON}
"""Readers that check order and digests by themselves."""
INEXACT = {"react-native-sse", "fetch-event-source", "penstock", "penstock-xhr"}
"""Readers that change a text by themselves (spaces, line breaks at its ends): JSON events are for them. Ours
reads no others."""
WINDOWS = {"fetch-event-source"}
"""Readers that keep an id before its event is theirs: a cut between the two loses the event."""
ENDS = {"closed done", "done", "204", "clean end", "completed"}
WHOLE = {"penstock", "penstock-websocket", *PYTHON}
"""Readers that are cut at every byte of an answer."""

FROM_A_LOG = "GET /v1/streams/{id}/events"
"""The route on which that is done: nothing is generated for it anew. On a WebSocket it is a ``read``."""

SOCKETS = {FROM_A_LOG: "read", "POST /v1/streams": "create"}
"""What is asked on a WebSocket in place of a route."""

numbers = itertools.count(1)


def routes_of(name):
    """The routes that a reader can read."""
    for route, format in ROUTES.items():
        # Those are for browsers without a client.
        if (name in PYTHON or name.endswith(SOCKET)) and route.startswith("GET /stream"):
            continue
        if (name in POSTERS or not route.startswith("POST")) and (name not in INEXACT or format == "json"):
            yield route


class Torture:
    """The jobs of one reader on one route, and what came of them."""

    def __init__(self, network, gateway, name, route, read, place="", bases=()):
        """``read``: takes jobs and gives results."""
        self.network = network
        self.gateway = gateway
        self.name = name
        self.place = place
        self.route = route
        self.read = read
        self.socket = name.endswith(SOCKET)
        self.format = ROUTES[route]
        self.creates = "{id}" not in route
        self.bases = bases or [network.url]
        self.runs = {}
        self.every = 0
        self.stream = ""

    def body(self, asked):
        messages = [{"role": "user", "content": asked}]
        return json.dumps({"request": {"model": "torture", "messages": messages}})

    def path(self, asked):
        if not self.creates:
            return f"/v1/streams/{self.stream}/events"
        if self.route.startswith("POST"):
            return "/v1/streams"
        return str(httpx.URL("/stream", params={"content": asked, "format": self.format}))

    def create(self, asked):
        """Let the gateway answer, without a reader; return the stream once it is whole."""
        headers = {"content-type": "application/json", "prefer": "respond-async"}
        made = httpx.post(f"{self.gateway.url}/v1/streams", content=self.body(asked), headers=headers)
        stream = made.raise_for_status().json()["stream"]
        assert self.gateway.wait_closed(stream)["status"] == "completed"
        return stream

    def shape(self):
        """Read an answer once, whole, and look at it."""
        number = next(numbers)
        asked = f"{self.name} {number}"
        if not self.creates:
            self.stream = self.create(asked)
        run = self.network.plan(number, [])
        if self.socket:  # whose messages have names of the client's own in them
            (result,) = self.read([self.job(number, asked, self.bases[0])])
            assert (result["texts"], result["how"]) == (None, "completed")
            return shape_of(bytes(run.answers[0].data))
        method = self.route.split()[0]
        headers = {"content-type": "application/json"} if method == "POST" else {}
        content = self.body(asked) if method == "POST" else None
        url = f"{self.network.url}/{number}{self.path(asked)}"
        httpx.request(method, url, content=content, headers=headers, timeout=PATIENCE).raise_for_status()
        return shape_of(bytes(run.answers[0].data))

    def plans(self, shape, chance):
        """What is to be cut."""
        if not ALL:
            return part(shape, chance, SAMPLE) if self.socket else some(shape, chance, SAMPLE)
        plans = every(shape, chance) if not self.socket else part(shape, chance, SOME)
        if self.name in WHOLE and self.route == FROM_A_LOG:
            plans += whole(shape)
            self.every = shape.size
        return plans

    def job(self, number, asked, base):
        job = {"run": number, "url": f"{base}/{number}{self.path(asked)}", "format": self.format}
        if self.route.startswith("POST"):
            job |= {"post": self.body(asked), "key": asked}
        return job

    def jobs(self):
        """One job for each plan. Where it is cut before its id, the provider is silent until it is back."""
        chance = random.Random(f"{self.name} {self.route}")
        shape = self.shape()
        plans = self.plans(shape, chance)
        chance.shuffle(plans)
        for plan, base in zip(plans, itertools.cycle(self.bases), strict=False):
            number = next(numbers)
            asked = f"{self.name} {number}"
            gated = self.creates and not self.socket and early(shape, plan[0])
            self.runs[number] = self.network.plan(number, plan, asked=asked if gated else "")
            yield self.job(number, asked, base)

    def judge(self, results):
        """Count, and collect what is wrong, with the cuts it was under."""
        reader = self.name.removesuffix(SOCKET)
        transport, route = ("WebSocket", SOCKETS[self.route]) if self.socket else ("SSE", self.route)
        row = Row(f"{reader} ({self.place})" if self.place else reader, transport, route)
        wrong = []
        offsets = set(range(self.every))
        for result in results:
            if (run := self.runs.get(result["run"])) is None:
                continue
            texts = result["texts"]
            lost, repeated = (0, 0) if texts is None else compare(EXPECTED[self.format], texts)
            row.readers += 1
            row.verified += result["verified"]
            row.cuts += len(run.made)
            row.window += run.in_window
            offsets -= {cut.offset for cut, _ in run.made if cut.event == HEAD}
            row.lost += lost
            row.repeated += repeated
            calls = self.network.provider.calls[f"{self.name} {result['run']}"]
            row.calls += calls
            bad = [result["how"]] if result["how"] not in ENDS else []
            if self.name in VERIFYING and not result["verified"]:
                bad.append("unverified")
            if repeated or lost > (run.in_window if self.name in WINDOWS else 0):
                bad.append(f"{lost} lost, {repeated} repeated")
            if texts is not None and not (lost or repeated):
                bad.append("out of order")
            if len(run.requests) > len(run.made) + 2:
                bad.append(f"{len(run.requests)} requests")
            # A browser drops what it has not looked at when it meets a reset: then it has no id of what
            # was sent to it, and pays again. Before an entry was sent, and with a key, nobody does.
            again = 0 if run.gate or self.route.startswith("POST") else run.anew
            if calls > self.creates + again:
                bad.append(f"{calls} upstream calls, asked anew {run.anew} times")
            if bad:
                cuts = [cut for cut, _ in run.made]
                wrong.append((bad, cuts, run.story, run.made[-1][1] if run.made else b""))
            del self.network.runs[result["run"]]  # with every byte of its answers
        row.every = self.every
        if len(offsets) > SLACK:  # an answer may be a little shorter than another, and its end not waited for
            wrong.append(f"not cut at {len(offsets)} offsets")
        return row, wrong


def early(shape, cut):
    """Say whether a cut comes before the first id is there."""
    return cut.offset < shape.events[0] + (shape.head if cut.event == HEAD else 0) and cut.event in (HEAD, 0)


def hold(tortures, results, rows):
    """Every reader has every event, once, and every answer was paid once."""
    judged = [torture.judge(results) for torture in tortures]
    rows += [row for row, _ in judged]
    for torture, (row, wrong) in zip(tortures, judged, strict=True):
        assert not wrong, f"{row.route}: {len(wrong)} of {row.readers}: {wrong[:5]}"
        assert row.cuts >= 0.8 * row.readers > 0
        assert row.calls >= row.readers * torture.creates


def torment(read, network, gateway, rows, name, *where):
    """Run a reader on all its routes at once through all its cuts."""
    tortures = [Torture(network, gateway, name, route, read, *where) for route in routes_of(name)]
    hold(tortures, read([job for torture in tortures for job in torture.jobs()]), rows)


@pytest.mark.timeout(3_600 if ALL else 120)
@pytest.mark.parametrize("name", NODE)
def test_no_cut_costs_an_event(network, torn, rows, tmp_path, name):
    torment(lambda jobs: by_node(name, jobs, EXPECTED, tmp_path), network, torn, rows, name, "Node.js")


@pytest.mark.timeout(3_600 if ALL else 120)
@pytest.mark.parametrize("name", ["httpx-sse", *PYTHON])
def test_no_cut_costs_an_event_in_python(network, torn, rows, name):
    read = by_httpx if name == "httpx-sse" else functools.partial(by_penstock, name)
    torment(lambda jobs: read(jobs, EXPECTED), network, torn, rows, name)


@pytest.mark.timeout(3_600 if ALL else 180)
@pytest.mark.parametrize("name", CHROMIUM if ALL else CHROMIUM[:5])
def test_no_cut_costs_an_event_in_a_browser(network, torn, rows, tmp_path, name):
    def read(jobs):
        return by_chromium(name, jobs, EXPECTED, tmp_path, 3_000 if ALL else 150)

    torment(read, network, torn, rows, name, "Chromium", network.secure_urls)
