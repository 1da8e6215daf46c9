"""One gateway for all tests with real clients: started as people start it, and stopped for good at the end.

Its models: the embedded ones without any waiting (``demo-…``); ``paced``, which repeats what it is told,
100 words a second; ``slow-start``; and ``endless`` and ``pausing`` of an upstream of the test's own.
"""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.clients.browser import Complaints, browsing
from tests.clients.chat import Chat, prefer
from tests.clients.gateway import PATIENCE, Gateway, serving
from tests.clients.relay import Relay, relaying
from tests.clients.upstream import Upstream, answering

HEARTBEAT = 0.05


def settings(upstream: Upstream, **more) -> dict:
    """The settings of `gateway`, and ``more``."""
    paced = "demo-echo?tokens_per_second=100&first_token_delay=0.05&jitter=0"
    slow = "demo-slow-start?first_token_delay=0.6&tokens=3"
    return {
        "listen": {"heartbeat": HEARTBEAT, "commit_after": 0.2, **more.pop("listen", {})},
        "providers": {
            "demo": {"kind": "scripted", "speed": 0},
            "paced": {"kind": "scripted"},
            "upstream": {"base_url": f"{upstream.url}/v1", "api_key": "unused"},
        },
        "models": {
            "paced": [{"provider": "paced", "model": paced}],
            "slow-start": [{"provider": "paced", "model": slow}],
            "endless": [{"provider": "upstream", "model": "endless"}],
            "pausing": [{"provider": "upstream", "model": "pausing"}],
        },
        "default_model": "demo",
        "retry": {"tries": 1},
        **more,
    }


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """A provider that notices who leaves."""
    with answering() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, upstream) -> Iterator[Gateway]:
    """A running gateway without keys."""
    with serving(tmp_path_factory.mktemp("gateway"), settings(upstream)) as gateway:
        yield gateway


@pytest.fixture
def relay(gateway) -> Iterator[Relay]:
    """A network on the way to `gateway` that can be listened to and cut."""
    with relaying(gateway.url) as relay:
        yield relay


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the module's tests: while there is one, no coroutine can be run (see `browsing`)."""
    with browsing() as browser:
        yield browser


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What the browser complained of; anything left in here fails the test.

    A test that provokes complaints asserts on them (`settle` first) and clears the list.
    """
    complaints = Complaints()
    yield complaints
    if complaints:
        pytest.fail("a page complained:\n  " + "\n  ".join(complaints), pytrace=False)


@pytest.fixture
def new_context(browser, complaints) -> Iterator[Callable[..., BrowserContext]]:
    """Make a fresh profile, with the options of `Browser.new_context`; its pages must not complain."""
    contexts: list[BrowserContext] = []

    def new(**options) -> BrowserContext:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        complaints.watch(context)
        return context

    yield new
    complaints.settle()
    for context in contexts:
        context.close()


@pytest.fixture
def context(new_context) -> BrowserContext:
    """A fresh profile: its pages share storage, and must not complain."""
    return new_context()


@pytest.fixture
def page(context) -> Page:
    """An empty page in a fresh profile, which must not complain."""
    return context.new_page()


@pytest.fixture
def chat(context, gateway) -> Chat:
    """The chat page in a fresh profile, in English, which asks `paced`."""
    prefer(context, model="paced")
    return Chat(context.new_page(), gateway.url).open()
