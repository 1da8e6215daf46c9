"""An answer in a chat of Vercel's AI SDK, cut at any byte and resumed, is the message it would have been.

The chats are those that `useChat` wraps, of npm `ai` 5, 6 and 7, in Node.js. The gateway gives a chat's last
answer again until somebody has taken its end, and the network takes all that it is given, as proxies do; so
the provider keeps the end to itself until the chat is back, and all bytes before the end are cut.
"""

import itertools

import pytest

from tests.clients.ai_sdk import VERSIONS, Chats, known, text_of
from tests.clients.torture.answer import PIECES
from tests.clients.torture.cuts import ALL, sampled, shape_of
from tests.clients.torture.network import HEAD, Cut
from tests.clients.torture.table import Row

SAMPLE = 24
ENDING = b'"type":"text-end"'
FRAMING = 10
"""Bytes of HTTP's chunks that may be between two events, or not."""

numbers = itertools.count(3_000_000)


def places(shape, ending):
    """Every byte of the head, and of each event up to the last text, as counted from the event before."""
    head = [(HEAD, offset) for offset in range(shape.head)]
    events = [
        (n, offset) for n in range(ending) for offset in range(shape.events[n] - FRAMING * (n + 1 == ending))
    ]
    return head + events


@pytest.mark.timeout(3_600 if ALL else 120)
@pytest.mark.parametrize("version", VERSIONS)
def test_no_cut_changes_the_message(network, torn, rows, tmp_path, version):
    chats = Chats(version, tmp_path)

    def job(number):
        asked = f"useChat {number}"
        api = f"{network.url}/{number}/ui/chat"
        return {"do": "ask", "api": api, "id": f"chat-{number}", "model": "torture", "text": asked}

    first = next(numbers)
    run = network.plan(first, [])
    (entire,) = chats.run(job(first))
    assert entire["how"] == "ready"
    whole = entire["messages"][1]
    assert text_of(whole) == "".join(PIECES)
    answer = bytes(run.answers[0].data)
    shape = shape_of(answer)
    ending = answer[: answer.index(ENDING)].count(b"\n\n")

    row = Row(f"useChat {version} (Node.js)", "SSE", "POST /ui/chat")
    every = places(shape, ending)
    runs, jobs = [], []
    for index, kind in sampled(len(every), SAMPLE, f"useChat {version}"):
        number = next(numbers)
        runs.append(network.plan(number, [Cut(*every[index], kind)], unended=f"useChat {number}"))
        jobs.append(job(number))
    wrong = []
    for run, job, result in zip(runs, jobs, chats.run(*jobs), strict=True):
        said = result["messages"][1] if len(result["messages"]) > 1 else None
        row.readers += 1
        row.cuts += len(run.made)
        row.calls += network.provider.calls[job["text"]]
        if said is None or known(said) != known(whole) or result["how"] != "ready" or not run.made:
            row.lost += said is None or len(text_of(said)) < len(text_of(whole))
            row.repeated += said is not None and len(text_of(said)) > len(text_of(whole))
            wrong.append((result["how"], result.get("errors"), run.made, run.story))
        run.answers.clear()  # every byte of them
    row.every = len(every) if ALL else 0
    rows.append(row)
    assert not wrong, f"{len(wrong)} of {row.readers}: {wrong[:5]}"
    assert row.calls == row.cuts == row.readers
