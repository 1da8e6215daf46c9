"""`Chat` of npm `ai` 5, 6 and 7, which `useChat` wraps, unchanged, in Node.js: cut, stopped, left alone.

Real processes leave in mid-answer here, which a page in a browser does not show.
"""

import pytest

from tests.clients.ai_sdk import VERSIONS, Chats, known, text_of
from tests.clients.relay import relaying

WORDS = " ".join(f"word{n}" for n in range(50))


@pytest.fixture(scope="module", params=VERSIONS)
def chats(request, tmp_path_factory):
    """The chats of one version."""
    chats = Chats(request.param, tmp_path_factory.mktemp("chats"))
    chats.version = request.param
    return chats


def test_an_answer_that_was_cut_is_resumed_to_the_same_message(chats, gateway):
    whole = {"do": "ask", "id": f"node-whole-{chats.version}", "model": "paced", "text": WORDS}
    with relaying(gateway.url) as network:
        network.cuts.append(2500)
        cut = {**whole, "id": f"node-cut-{chats.version}", "api": f"{network.url}/ui/chat"}
        entire, resumed = chats.run({**whole, "api": f"{gateway.url}/ui/chat"}, cut)
    assert (entire["how"], entire["lost"]) == ("ready", 0)
    assert (resumed["how"], resumed["lost"]) == ("ready", 1)
    assert resumed["errors"]
    asked, answer = resumed["messages"]
    assert text_of(asked) == text_of(answer) == WORDS
    assert known(answer) == known(entire["messages"][1])
    assert answer["id"] == f"msg_{answer['metadata']['stream'][2:]}"


def test_stop_has_left_the_provider_before_it_is_answered(chats, gateway, upstream):
    before = len(upstream.asked)
    job = {"do": "stop", "id": f"node-stop-{chats.version}", "model": "endless", "text": "Go", "until": "5 "}
    (seen,) = chats.run({**job, "api": f"{gateway.url}/ui/chat", "upstream": upstream.url})
    assert seen["gone"][before:] == [True]  # asked by the page, behind the answer to its stop
    (stopped,) = seen["stopped"]
    assert gateway.get(f"/v1/streams/{stopped}")["status"] == "cancelled"
    assert seen["how"] == "ready"
    assert text_of(seen["messages"][1]).startswith("1 2 3 4 5 ")


def test_a_process_that_is_gone_stops_nothing_and_the_message_is_there_for_the_next(chats, gateway):
    chat = f"node-away-{chats.version}"
    where = {"api": f"{gateway.url}/ui/chat", "id": chat, "model": "paced"}
    (left,) = chats.run({**where, "do": "leave", "text": WORDS, "until": "word2 "})
    asked, partial = left["messages"]
    assert 0 < len(text_of(partial)) < len(WORDS)
    closed = gateway.wait_closed(partial["metadata"]["stream"])
    assert (closed["status"], closed["text"]) == ("completed", WORDS)
    back, entire = chats.run(
        {**where, "do": "resume", "messages": [asked]},
        {**where, "do": "ask", "id": f"{chat}-whole", "text": WORDS},
    )
    assert back["how"] == "ready"
    assert known(back["messages"][1]) == known(entire["messages"][1])
    assert back["messages"][1]["id"] == partial["id"]
