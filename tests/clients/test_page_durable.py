"""The chat page when the connection, the gateway or the page itself goes away: nothing is lost or doubled."""

import pytest
from playwright.sync_api import expect

from tests.clients.browser import until
from tests.clients.chat import Chat, prefer, without_sockets
from tests.clients.conftest import settings
from tests.clients.gateway import serving, wait_for
from tests.clients.relay import relaying

SAID = " ".join(f"word{number}" for number in range(80))
LONG = " ".join(f"word{number}" for number in range(300))
"""Long enough to press something meanwhile."""


def lost(complaints) -> None:
    """A browser reports every connection that was lost; these were provoked."""
    assert [one for one in complaints.settle() if "net::ERR_" not in one] == []
    complaints.clear()


def hurry(chat) -> None:
    """Press "Try now", unless the page has tried by itself meanwhile: then there is nothing to press."""
    button = "[...document.querySelectorAll('button')].find((one) => one.textContent.trim() === 'Try now')"
    chat.page.evaluate(f"{button}?.click()")


def runs(gateway) -> int:
    """How many answers were asked for and have ended."""
    return len(gateway.log("stream_closed"))


@pytest.fixture
def own(tmp_path, upstream):
    """A gateway that a test may kill."""
    with serving(tmp_path, settings(upstream)) as gateway:
        yield gateway


@pytest.fixture
def behind(context, relay) -> Chat:
    """The page behind a network that can be cut, and that knows HTTP alone."""
    prefer(context, model="paced")
    return Chat(without_sockets(context).new_page(), relay.url).open()


@pytest.fixture
def socketless(context, gateway) -> Chat:
    """The page in a browser that has no WebSocket."""
    prefer(context, model="paced")
    return Chat(without_sockets(context).new_page(), gateway.url).open()


def test_reloading_in_mid_answer_loses_and_doubles_nothing(chat, gateway):
    before = runs(gateway)
    chat.ask(LONG)
    chat.shown(60)
    chat.reload()
    chat.shown(60)
    chat.ended()
    assert chat.text == LONG
    assert "300 chunks" in chat.figures
    assert "first chunk after" not in chat.figures  # by whose clock?
    assert runs(gateway) == before + 1


def test_a_page_that_was_closed_before_it_was_answered_asks_only_once(context, gateway, complaints):
    before = runs(gateway)
    prefer(context, model="paced")
    chat = Chat(without_sockets(context).new_page(), gateway.url).open()
    # The first request arrives; no response ever does.
    arrived = []

    def swallow(route):
        if not arrived:
            arrived.append(route.fetch())
        route.abort()

    context.route("**/v1/streams", swallow)
    chat.ask(SAID)
    wait_for(lambda: chat.page.evaluate("1") and runs(gateway) == before + 1)
    where = chat.page.evaluate("location.hash")
    chat.page.close()
    context.unroute("**/v1/streams")
    again = Chat(context.new_page(), gateway.url).open(where)
    again.ended()
    assert again.text == SAID
    assert runs(gateway) == before + 1
    lost(complaints)


def test_a_second_tab_follows_the_same_answer(chat, gateway):
    chat.ask("Hello", "endless")
    chat.shown(20)
    other = chat.tab()
    other.shown(20)
    was = len(other.text)
    other.shown(was + 20)
    other.press("Stop the answer")
    chat.ended()
    other.ended()
    assert chat.text == other.text == gateway.get(f"/v1/streams/{chat.stream}")["text"].strip()


def test_an_answer_goes_on_while_another_conversation_is_looked_at(chat):
    chat.ask(LONG)
    chat.shown()
    chat.press("New chat", chat.page.locator("#drawer"))
    expect(chat.page.locator("#empty")).to_be_visible()
    chat.page.locator("#conversations a").click()
    chat.ended()
    assert chat.text == LONG


def test_a_connection_that_is_cut_on_purpose_is_taken_up_where_it_was(chat):
    chat.press("Lab")
    chat.ask(LONG)
    chat.shown(60)
    chat.press("Cut the connection")
    expect(chat.answer).to_contain_text("Connection cut")
    chat.ended()
    assert chat.text == LONG
    assert "300 chunks" in chat.figures
    strip = chat.answer.locator(".strip").get_attribute("aria-label")
    assert "The connection was lost once." in strip
    assert "had waited and came at once" in strip


@pytest.mark.parametrize("cuts", [[0], [100, 300, 0, 500], [2000, 1, 1]])
def test_a_network_that_breaks_anywhere_costs_nothing_but_time(behind, relay, gateway, complaints, cuts):
    before = runs(gateway)
    relay.cuts += cuts
    behind.ask(SAID)
    until(
        behind.page,
        "document.querySelector('.waiting.trouble:not([hidden])') || document.querySelector('.ending')",
    )
    behind.ended()
    assert behind.text == SAID
    assert "80 chunks" in behind.figures
    assert relay.cuts == []
    assert runs(gateway) == before + 1
    lost(complaints)


def test_sockets_that_break_cost_nothing_but_time(context, relay, complaints):
    """And a second one in a row that was young does not count as one any more."""
    prefer(context, model="paced")
    chat = Chat(context.new_page(), relay.url).open()
    chat.ask(LONG)
    for shown in (40, 300):
        chat.shown(shown)
        relay.cut()
    chat.ended()
    assert chat.text == LONG
    assert "300 chunks" in chat.figures
    assert [relay.requests.count(f"/v1/{way}") for way in ("ws", "streams")] == [2, 0]
    assert relay.requests[-1].endswith("/events")
    lost(complaints)


@pytest.mark.timeout(180)
def test_eight_tabs_stream_at_once_on_one_connection(context, relay):
    prefer(context, model="endless")
    tabs = [Chat(context.new_page(), relay.url).open() for _ in range(8)]
    for chat in tabs:
        chat.ask("Hello")
    for shown in (1, 60):
        for chat in tabs:
            chat.shown(shown)
    assert relay.requests.count("/v1/ws") == 1
    for chat in tabs:
        chat.press("Stop the answer")
    for chat in tabs:
        chat.ended()
        numbers = [int(number) for number in chat.text.split()]
        assert numbers == list(range(1, len(numbers) + 1))
    assert relay.requests.count("/v1/ws") == 1


def test_a_request_whose_response_is_lost_is_repeated_under_its_key(behind, relay, gateway, complaints):
    before = runs(gateway)
    behind.page.route("**/v1/streams", lambda route: route.fetch() and route.abort(), times=1)
    behind.ask(SAID)
    behind.ended()
    assert behind.text == SAID
    assert relay.requests.count("/v1/streams") == 2
    assert runs(gateway) == before + 1
    lost(complaints)


def test_what_something_else_answers_is_no_end(behind, gateway, complaints):
    """A proxy that says 502 or shows a page of its own while the gateway is away."""
    behind.ask("Hello", "endless")
    behind.shown(20)
    statuses = [502, 200, 404]

    def answer(route):
        route.fulfill(status=statuses.pop(0), body="<h1>Bad gateway</h1>", content_type="text/html")

    behind.page.route("**/events", answer, times=3)
    behind.press("Lab")
    behind.press("Cut the connection")
    while statuses:
        behind.page.wait_for_timeout(50)
        hurry(behind)
    was = len(behind.text)
    behind.shown(was + 100)
    behind.press("Stop the answer")
    behind.ended()
    assert behind.text == gateway.get(f"/v1/streams/{behind.stream}")["text"].strip()
    complaints.clear()


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 204},
        {"status": 416, "json": {"error": {"code": "cursor_ahead", "message": "ahead", "fault": "client"}}},
        {"status": 409, "json": {"error": {"code": "log_lost", "message": "lost", "fault": "client"}}},
        {
            "content_type": "text/event-stream",
            "body": 'event: fail\ndata: {"code":"log_lost","message":"lost","retryable":false}\n\n',
        },
    ],
    ids=["204", "416", "409", "fail"],
)
def test_a_cursor_that_is_worth_nothing_is_dropped_and_all_is_read_again(socketless, complaints, answer):
    socketless.page.route("**/events", lambda route: route.fulfill(**answer), times=1)
    socketless.press("Lab")
    socketless.ask(LONG)
    socketless.shown(60)
    socketless.press("Cut the connection")
    socketless.ended()
    assert socketless.text == LONG
    assert "300 chunks" in socketless.figures
    complaints.clear()


def test_a_log_that_cannot_be_read_at_the_moment_can_be_read_on_later(socketless, complaints):
    damaged = {"error": {"code": "log_damaged", "message": "A part is damaged.", "fault": "gateway"}}
    socketless.page.route("**/events", lambda route: route.fulfill(status=500, json=damaged), times=1)
    socketless.press("Lab")
    socketless.ask(LONG)
    socketless.shown(60)
    socketless.press("Cut the connection")
    expect(socketless.ending).to_contain_text("A part is damaged.")
    socketless.press("Try again")
    socketless.ended()
    assert socketless.text == LONG
    socketless.reload()
    assert socketless.text == LONG
    complaints.clear()


def test_an_answer_goes_on_while_another_version_is_looked_at(chat):
    chat.ask("one two", "demo-echo")
    chat.ended()
    chat.choose("endless")
    chat.press("Answer again")
    chat.shown(20)
    chat.press("Version before")
    expect(chat.answer).to_contain_text("1/2")
    assert chat.text == "one two"
    chat.press("Version after")
    was = len(chat.text)
    chat.shown(was + 20)
    chat.press("Stop the answer")
    chat.ended()
    numbers = [int(number) for number in chat.text.split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_conversation_that_is_deleted_stops_its_answer(chat, upstream):
    chat.ask("Hello", "endless")
    chat.shown(10)
    chat.menu(chat.page.get_by_label("More about “Hello”"), "Delete")
    chat.press("Delete", chat.page.locator("#small-dialog"))
    assert upstream.asked[-1].left.wait(10)


def test_a_gateway_that_is_killed_in_mid_answer_breaks_nothing(context, complaints, own):
    prefer(context, model="paced")
    chat = Chat(context.new_page(), own.url).open()
    chat.ask(" ".join([SAID] * 10))
    chat.shown(200)
    own.kill()
    expect(chat.answer).to_contain_text("The gateway cannot be reached.")
    shown = chat.text
    expect(chat.answer).to_contain_text("attempt 2")
    own.start()
    chat.ended()
    assert chat.text.startswith(shown)
    expect(chat.ending).to_contain_text("Interrupted")
    expect(chat.ending).to_contain_text("gateway_restarted")
    expect(chat.ending).to_contain_text("the gateway is at fault")
    chat.press("Try again")
    expect(chat.answer).to_contain_text("2/2")
    chat.shown(1)
    chat.press("Stop the answer")
    chat.ended()
    lost(complaints)


def test_a_page_is_asked_while_the_gateway_is_away_and_answered_when_it_is_back(context, complaints, own):
    prefer(context, model="demo-echo")
    chat = Chat(context.new_page(), own.url).open()
    own.kill()
    chat.ask("are you there")
    expect(chat.answer).to_contain_text("The gateway cannot be reached.")
    own.start()
    hurry(chat)
    chat.ended()
    assert chat.text == "are you there"
    lost(complaints)


def test_waiting_for_a_gateway_that_stays_away_can_be_given_up(context, complaints, own):
    prefer(context, model="endless")
    chat = Chat(context.new_page(), own.url).open()
    chat.ask("Hello")
    chat.shown(10)
    own.kill()
    expect(chat.answer).to_contain_text("The gateway cannot be reached.")
    chat.press("Stop the answer")
    expect(chat.answer).to_contain_text("press Stop again")
    chat.press("Stop the answer")
    chat.ended()
    expect(chat.ending).to_contain_text("The gateway could not be told")
    own.start()
    lost(complaints)


def test_an_answer_that_the_gateway_no_longer_has_says_so(context, complaints, tmp_path, upstream):
    in_memory = settings(upstream, store={"kind": "memory"})
    with serving(tmp_path, in_memory) as gateway:
        prefer(context, model="endless")
        chat = Chat(context.new_page(), gateway.url).open()
        chat.ask("Hello")
        chat.shown(20)
        gateway.restart()
        chat.ended()
        expect(chat.ending).to_contain_text("No longer there")
        assert chat.text.startswith("1 2 3")
    complaints.clear()


def test_a_gateway_that_is_silent_for_too_long_counts_as_lost(context, complaints, own):
    """Frozen, so that no heartbeat comes; the page's clock is turned on by hand."""
    prefer(context, model="endless")
    chat = Chat(without_sockets(context).new_page(), own.url)
    chat.page.clock.install()
    chat.open().ask("Hello")
    chat.shown(20)
    own.freeze()
    try:
        chat.page.clock.fast_forward(46_000)
        expect(chat.answer).to_contain_text("Nothing was heard for too long.")
    finally:
        own.thaw()
    chat.page.clock.fast_forward(2_000)
    was = len(chat.text)
    chat.shown(was + 20)
    chat.press("Stop the answer")
    chat.ended()
    lost(complaints)


def test_a_stream_that_never_was_says_so(context, gateway, complaints):
    prefer(context)
    chat = Chat(context.new_page(), gateway.url).open(f"#/s/s_00{'0' * 26}")
    chat.ended()
    expect(chat.ending).to_contain_text("No longer there")
    complaints.clear()


def test_a_page_that_is_left_and_come_back_to_goes_on(chat):
    chat.ask("Hello", "endless")
    chat.shown(20)
    chat.page.goto("about:blank")
    chat.page.go_back()
    chat.ready()
    was = len(chat.text)
    chat.shown(was + 20)
    chat.press("Stop the answer")
    chat.ended()
    numbers = [int(number) for number in chat.text.split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_delays_double_with_full_jitter(chat):
    script = """import("/client/penstock.js").then(({ delayOf }) => {
      const backoff = { first: 1000, most: 30000, attempts: Infinity };
      return [1, 2, 3, 4, 5, 6, 60].map((n) => [0, 1].map((chance) => delayOf(backoff, n, () => chance)));
    })"""
    assert chat.page.evaluate(script) == [
        [0, most] for most in (1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000)
    ]


def test_two_networks_make_no_difference(context, gateway):
    """A tab on each of two addresses shares nothing but the stream."""
    prefer(context, model="endless")
    with relaying(gateway.url) as one:
        chat = Chat(context.new_page(), one.url).open()
        chat.ask("Hello")
        chat.shown(20)
        other = Chat(context.new_page(), gateway.url).open(f"#/s/{chat.stream}")
        other.shown(20)
        chat.press("Stop the answer")
        chat.ended()
        other.ended()
        assert chat.text == other.text
