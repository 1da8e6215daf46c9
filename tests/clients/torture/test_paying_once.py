"""A reader that asks again because it was cut pays once, where that can be told from asking twice."""

import itertools
import json

import openai
import pytest

from tests.clients.torture.answer import PIECES, shown
from tests.clients.torture.network import HEAD, Cut
from tests.clients.torture.readers import by_node

EXPECTED = {format: shown(PIECES, format) for format in ("text", "json")}
KINDS = ["rst", "fin", "rst", "fin", "rst"]
numbers = itertools.count(1_000_000)


@pytest.fixture
def read(network, torn, tmp_path):
    """Read answers with a reader of Node.js, all at once; return each one's run and upstream calls.

    Each is given by its cuts and ``post``, ``key``, ``thinks``: no output before the reader is back.
    """

    def go(name, *cases):
        jobs, runs = [], {}
        for cuts, how in cases:
            number = next(numbers)
            asked = f"{name} {number}"
            runs[asked] = network.plan(number, cuts, asked=asked if how == "thinks" else "")
            path = f"/stream?format=json&content={asked}" + (f"&key={number}" if how == "key" else "")
            job = {"run": number, "url": f"{network.url}/{number}{path}", "format": "json"}
            if how.startswith("post"):
                message = {"role": "user", "content": asked}
                job["post"] = json.dumps({"request": {"model": "torture", "messages": [message]}})
                job["url"] = f"{network.url}/{number}/v1/streams"
                job["key"] = asked if how == "post with key" else ""
            jobs.append(job)
        for result in by_node(name, jobs, EXPECTED, tmp_path):
            assert result["texts"] is None, result
        return [(run, network.provider.calls[asked]) for asked, run in runs.items()]

    return go


def resumed(run):
    return [b"last-event-id: s_" in head.lower() for head in run.requests]


def test_a_post_that_is_repeated_five_times_pays_once_after_its_first_id_or_under_a_key(read):
    after_id = [Cut(HEAD, 900 + 40 * n, kind) for n, kind in enumerate(KINDS)]
    before_id = [Cut(HEAD, 300, kind) for kind in KINDS]
    (with_id, once), (with_key, one), (bare, each) = read(
        "fetch-event-source", (after_id, "post"), (before_id, "post with key"), (before_id, "post")
    )
    assert resumed(with_id) == [False] + [True] * 5
    assert resumed(with_key) == resumed(bare) == [False] * 6
    assert (once, one) == (1, 1)
    assert each == 6, "nothing tells it from somebody who asks six times"


def test_an_event_source_that_is_cut_before_its_first_id_pays_once(read):
    early = [([Cut(HEAD, offset, kind)], "thinks") for offset in (0, 9, 300) for kind in ("rst", "fin")]
    *thinking, (keyed, once) = read("eventsource", *early, ([Cut(HEAD, 300, "rst")] * 2, "key"))
    for run, calls in thinking:
        assert resumed(run) == [False, False, True]  # the last is the one that is answered 204
        assert calls == 1
    assert resumed(keyed) == [False, False, False, True]
    assert once == 1


@pytest.mark.parametrize("kind", ["rst", "fin"])
def test_an_openai_client_is_told_of_a_cut_and_pays_once_when_it_asks_again_under_its_key(
    network, torn, kind
):
    number = next(numbers)
    asked = f"openai {number}"
    run = network.plan(number, [Cut(HEAD, 1500, kind)])
    request = {"model": "torture", "messages": [{"role": "user", "content": asked}], "stream": True}
    url = f"{network.url}/{number}/v1"
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:

        def answer():
            chunks = client.chat.completions.create(**request, extra_headers={"Idempotency-Key": asked})
            return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)

        with pytest.raises(openai.APIConnectionError):
            answer()
        assert len(run.made) == 1
        assert answer() == "".join(PIECES)
    assert network.provider.calls[asked] == 1
