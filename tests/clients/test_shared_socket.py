"""All tabs of a browser share one WebSocket: over plain HTTP/1.1, whatever becomes of the tab that has it."""

import pytest

from tests.clients.gateway import wait_for

SAID = " ".join(f"word{number}" for number in range(250))
TAB = """<!doctype html>
<title>Tab</title>
<script type="module">
  import { Penstock } from "/client/penstock.js";

  window.begin = (model, content, options) => {
    window.penstock = new Penstock({ transport: "shared", ...options });
    const numbers = (window.numbers = []);
    window.stream = penstock.start({ model, messages: [{ role: "user", content }] });
    stream.onmessage = ({ n }) => numbers.push(n);
    stream.onclose = (end) => {
      const { text, verified, losses } = stream;
      window.over = { text, verified, losses, numbers, status: end?.status };
    };
  };
</script>
"""


@pytest.fixture
def new_tab(context, relay):
    """Open a tab and let it ask something."""
    relay.pages["/tab.html"] = TAB

    def new(model="paced", said=SAID, shown=10, **options):
        page = context.new_page()
        page.goto(f"{relay.url}/tab.html")
        page.wait_for_function("typeof begin === 'function'")
        page.evaluate("([model, said, options]) => begin(model, said, options)", [model, said, options])
        page.wait_for_function(f"numbers.length >= {shown}")
        return page

    return new


def sockets(relay):
    return relay.requests.count("/v1/ws")


def whole(page, said=SAID):
    """The tab's answer came to its end: all of it, once, in order."""
    page.wait_for_function("window.over")
    over = page.evaluate("over")
    assert (over["text"], over["status"], over["verified"]) == (said, "completed", True)
    assert over["numbers"] == list(range(1, len(over["numbers"]) + 1))
    return over


def test_seven_tabs_go_on_when_the_one_that_has_the_socket_is_closed(new_tab, relay, gateway):
    first, *others = [new_tab(shown=1) for _ in range(7)]
    for page in others:
        page.wait_for_function("numbers.length > 20")
    assert sockets(relay) == 1
    stream = first.evaluate("stream.id")
    first.close()
    for page in others:
        assert whole(page)["losses"] == 0
    assert sockets(relay) == 2
    assert gateway.wait_closed(stream)["status"] == "completed"


def test_a_tab_that_does_not_answer_is_led_no_more(new_tab, relay):
    """It shows a message that nobody closes."""
    first, second = new_tab("endless"), new_tab("endless")
    assert sockets(relay) == 1
    shown = []
    first.on("dialog", lambda dialog: shown.append(dialog))
    first.evaluate("setTimeout(() => alert('Hello'))")
    wait_for(lambda: second.evaluate("1") and shown)
    wait_for(lambda: second.evaluate("1") and sockets(relay) == 2)
    came = second.evaluate("numbers.length")
    second.wait_for_function(f"numbers.length > {came + 50}")
    shown[0].dismiss()
    was = first.evaluate("numbers.length")
    first.wait_for_function(f"numbers.length > {was + 50}")
    assert sockets(relay) == 2
    for page in (first, second):
        page.evaluate("stream.stop()")
        page.wait_for_function("window.over")
        over = page.evaluate("over")
        assert (over["status"], over["verified"]) == ("cancelled", True)
        assert over["numbers"] == list(range(1, len(over["numbers"]) + 1))


def test_a_socket_that_breaks_is_replaced_once_for_all(new_tab, relay):
    pages = [new_tab() for _ in range(3)]
    relay.cut()
    for page in pages:
        whole(page)
    assert sockets(relay) == 2


def test_another_user_has_another_socket(new_tab, relay):
    pages = [new_tab("demo-echo", "hello", 1, user=user) for user in ("alice", "bob", "alice")]
    for page in pages:
        whole(page, "hello")
    assert sockets(relay) == 2


def test_a_browser_without_locks_has_a_socket_for_each_tab(context, new_tab, relay):
    context.add_init_script("Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })")
    for page in [new_tab("demo-echo", "hello", 1) for _ in range(2)]:
        whole(page, "hello")
    assert sockets(relay) == 2
