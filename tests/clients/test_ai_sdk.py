"""`useChat` of npm `ai` 5, 6 and 7, unchanged, in Chromium: what is cut, stopped, left alone, broken."""

import json
from pathlib import Path

import httpx
import pytest

from tests.clients.ai_sdk import VERSIONS, bundle, known, script, text_of
from tests.clients.browser import until
from tests.clients.gateway import PATIENCE, wait_for
from tests.clients.relay import relaying
from tests.vectors import load

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = " ".join(f"word{n}" for n in range(50))
OPENING = [
    {"type": "start", "messageId": "m-1", "messageMetadata": {"stream": "s"}},
    {"type": "start-step"},
]


@pytest.fixture(scope="module", params=VERSIONS)
def html(request):
    """A page of one version."""
    return bundle(request.param)


@pytest.fixture
def network(gateway, context, html):
    """A network that can be cut, and a page of the same origin."""
    context.route("**/the/chat", lambda route: route.fulfill(body=html, content_type="text/html"))
    with relaying(gateway.url) as relay:
        yield relay


@pytest.fixture
def version(request):
    return next(v for v in VERSIONS if f"[{v}" in request.node.name)


class Tab:
    """One tab with the page."""

    def __init__(self, context, network):
        self.page = context.new_page()
        self.page.goto(f"{network.url}/the/chat")

    def mount(self, chat, model, *, how="mount", **more):
        self.page.evaluate(
            f"settings => window.{how}(settings)", {"id": chat, "body": {"model": model}, **more}
        )
        until(self.page, "window.chat !== undefined")

    def send(self, text):
        self.page.evaluate("text => void window.chat.sendMessage({ text })", text)

    def wait(self, script):
        return until(self.page, script)

    def settled(self):
        """Wait for an end, and say which."""
        return self.wait("['ready', 'error'].includes(window.chat.status) && window.chat.status")

    def messages(self):
        return json.loads(self.page.evaluate("JSON.stringify(window.chat.messages)"))

    def answer(self):
        return self.messages()[-1]


@pytest.fixture
def tab(context, network):
    return Tab(context, network)


def said(tab, text="word"):
    shown = f"parts.some((part) => part.type === 'text' && part.text.includes('{text}'))"
    tab.wait(f"window.chat.messages.some(({{ role, parts }}) => role === 'assistant' && {shown})")


# --- what the SDK makes of chunks ----------------------------------------------------------------------


def body(chunks):
    frames = [*(json.dumps(chunk) for chunk in (*OPENING, *chunks)), "[DONE]"]
    return "".join(f"data: {frame}\n\n" for frame in frames)


def test_every_vector_becomes_the_message_that_it_says(tab, version):
    vectors = load("ai_sdk/encoded")
    for vector in vectors:
        judged = tab.page.evaluate("body => window.judge(body)", body(vector.content["chunks"]))
        error = vector.content.get("error")
        assert judged["errors"] == ([error] if error else []), vector.name
        parts = judged["message"]["parts"]
        assert judged["message"]["id"] == "m-1"
        if vector.content["parts"] != [{"type": "step-start"}]:  # else nothing was written
            assert len(parts) == len(vector.content["parts"]), vector.name
        for found, wanted in zip(parts, vector.content["parts"], strict=False):
            if version != "7" and wanted.get("errorText"):  # they keep what cannot be read elsewhere
                wanted = {**wanted, "rawInput": wanted["input"]}
                del wanted["input"]
            assert found.items() >= wanted.items(), vector.name


# --- cut, left, stopped --------------------------------------------------------------------------------


def test_an_answer_that_was_cut_is_resumed_to_the_same_message(tab, network, complaints, version):
    tab.mount("whole", "paced")
    tab.send(WORDS)
    said(tab)
    assert tab.settled() == "ready"
    whole = tab.answer()
    assert text_of(whole) == WORDS
    chat = f"cut-{version}"
    tab.mount(chat, "paced")
    network.cuts.append(2500)
    tab.send(WORDS)
    assert tab.settled() == "error"
    asked, partial = tab.messages()
    assert 0 < len(text_of(partial)) < len(WORDS)
    assert tab.page.evaluate("window.ends.at(-1).disconnect") is True
    complaints.settle()
    complaints.clear()  # of the connection that was lost
    if version != "7":  # in the same component they add what is replayed to what they had
        tab.mount(chat, "paced", messages=[asked], resume=True)
    else:
        tab.page.evaluate("void window.chat.resumeStream()")
    tab.wait("window.chat.messages.length === 2")
    tab.wait(f"window.chat.messages[1].parts.some((part) => part.text?.length === {len(WORDS)})")
    assert tab.settled() == "ready"
    assert tab.messages()[0] == asked
    assert known(tab.answer()) == known(whole)
    stream = tab.answer()["metadata"]["stream"]
    assert tab.answer()["id"] == partial["id"] == f"msg_{stream[2:]}"


def test_with_a_durable_fetch_a_cut_is_not_noticed(tab, network, complaints, version):
    tab.mount("not-cut", "paced")
    tab.send(WORDS)
    said(tab)
    assert tab.settled() == "ready"
    whole = tab.answer()
    tab.mount(f"durable-{version}", "paced", how="mountDurable")
    network.cuts += [2500, 700, 0]
    tab.send(WORDS)
    said(tab)
    assert tab.settled() == "ready"
    assert network.cuts == []
    assert known(tab.answer()) == known(whole)
    assert tab.page.evaluate("window.errors") == []
    assert all("net::ERR_" in complaint for complaint in complaints.settle())
    complaints.clear()


def test_a_closed_tab_stops_nothing_and_the_message_is_there_when_it_is_opened_again(
    context, network, gateway, version
):
    chat = f"away-{version}"
    first = Tab(context, network)
    first.mount(chat, "paced")
    first.send(WORDS)
    said(first)
    stream = first.answer()["metadata"]["stream"]
    asked = first.messages()[0]
    first.page.close()
    assert gateway.wait_closed(stream)["status"] == "completed"
    second = Tab(context, network)
    second.mount(chat, "paced", messages=[asked], resume=True)
    second.wait("window.chat.messages.length === 2")
    assert second.settled() == "ready"
    assert text_of(second.answer()) == WORDS
    # Now it was given to this chat: it is not given again.
    path = f"{gateway.url}/ui/chat/{chat}/stream"
    wait_for(lambda: httpx.get(path, timeout=PATIENCE).status_code == 204)
    second.mount(chat, "paced", messages=[asked], resume=True)
    assert second.settled() == "ready"
    assert second.messages() == [asked]


def test_a_page_that_is_opened_in_mid_answer_follows_it(context, network, gateway, version):
    chat = f"reload-{version}"
    first = Tab(context, network)
    first.mount(chat, "endless")
    first.send("Go")
    said(first, "5 ")
    second = Tab(context, network)
    second.mount(chat, "endless", resume=True)
    said(second, "5 ")
    httpx.post(f"{gateway.url}/ui/chat/{chat}/stop", timeout=PATIENCE).raise_for_status()
    assert (first.settled(), second.settled()) == ("ready", "ready")
    assert first.answer() == second.answer()


def test_stop_has_left_the_provider_before_it_is_answered(tab, upstream, version):
    chat = f"stop-{version}"
    tab.mount(chat, "endless")
    tab.send("Go")
    said(tab, "5 ")
    (asked,) = [asked for asked in upstream.asked if not asked.left.is_set()]
    stop = "chat => window.chat.stop().then(() => fetch(`/ui/chat/${chat}/stop`, { method: 'POST' }))"
    stopped = tab.page.evaluate(f"chat => ({stop})(chat).then((response) => response.json())", chat)
    assert asked.gone
    assert len(stopped["stopped"]) == 1
    assert tab.settled() == "ready"
    assert text_of(tab.answer()).startswith("1 2 3 4 5 ")


# --- kinds of answers ----------------------------------------------------------------------------------


def test_tools_in_the_page_are_called_and_the_answer_goes_on_in_the_same_message(tab, version):
    tab.mount(f"tools-{version}", "demo-tools")
    tab.send("Hello")
    tab.wait(
        "window.called.length && window.chat.messages.at(-1)?.parts.some((part) => part.type === 'text')"
    )
    assert tab.settled() == "ready"
    asked, answer = tab.messages()
    calls = [part for part in answer["parts"] if part["type"].startswith("tool-")]
    assert calls
    assert all(call["state"] == "output-available" and call["output"] == {"done": True} for call in calls)
    assert tab.page.evaluate("window.called") == [call["input"] for call in calls]
    assert [part["type"] for part in answer["parts"]].count("step-start") == 2
    assert answer["parts"][-1]["type"] == "text"
    assert asked["role"] == "user"


def test_reasoning_is_a_part_of_its_own(tab, version):
    tab.mount(f"reasoning-{version}", "demo-reasoning")
    tab.send("Hello")
    said(tab, "")
    assert tab.settled() == "ready"
    kinds = [part["type"] for part in tab.answer()["parts"]]
    assert kinds == ["step-start", "reasoning", "text"]
    assert all(part["state"] == "done" for part in tab.answer()["parts"][1:])
    assert tab.answer()["metadata"]["usage"]["totalTokens"] > 0
    if version != "5":
        assert tab.page.evaluate("window.ends.at(-1).reason") == "stop"


def test_an_error_before_output_is_the_chats_error(tab, complaints, version):
    tab.mount(f"early-{version}", "demo-rate-limited")
    tab.send("Hello")
    tab.wait("window.errors.length")
    assert tab.settled() == "error"
    (told,) = tab.page.evaluate("window.errors")
    assert json.loads(told)["error"]["code"] == "rate_limit_exceeded"
    assert len(tab.messages()) == 1
    complaints.settle()
    complaints.clear()  # of the status


def test_an_error_in_mid_answer_keeps_what_had_come(tab, version):
    tab.mount(f"late-{version}", "demo-cut")
    tab.send("Hello")
    tab.wait("window.errors.length")
    assert tab.settled() == "error"
    assert text_of(tab.answer())
    assert tab.answer()["metadata"]["end"]["code"] == "upstream_reset"
    assert "{" not in tab.page.evaluate("window.errors")[0]


def giving(text, kind):
    """Return what answers a browser's request by itself."""
    return lambda route: route.fulfill(body=text, content_type=kind)


def test_the_example_is_a_chat_that_survives_a_reload(page, context, gateway):
    made = script((EXAMPLES / "use_chat.mjs").read_text(), "7")
    files = {
        "use_chat.html": ((EXAMPLES / "use_chat.html").read_text(), "text/html"),
        "use_chat.bundle.js": (made, "text/javascript"),
    }
    for name, (text, kind) in files.items():
        context.route(f"**/the/{name}**", giving(text, kind))
    page.goto(f"{gateway.url}/the/use_chat.html?gateway={gateway.url}")
    page.get_by_label("Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    until(page, "document.querySelector('.assistant')?.textContent.length > 20")
    until(page, "sessionStorage.messages?.includes('assistant')")
    shown = page.locator("main p").all_text_contents()
    page.reload()
    until(page, "document.querySelectorAll('main p').length === 2")
    assert page.locator("main p").all_text_contents() == shown
