"""Anthropic's TypeScript SDK, unchanged but for its base URL. What it does is in js/anthropic.test.mjs."""

import re

from tests.clients import node
from tests.clients.anthropic_server import KEY, running
from tests.clients.gateway import serving


def test_the_typescript_sdk_works_unchanged(gateway, relay, upstream, tmp_path):
    node.modules()
    once = {"retry": {"tries": 1, "tries_in_all": 1}}
    with (
        running() as server,
        serving(tmp_path, once, ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=server.url) as claude,
    ):
        environ = {"PENSTOCK_URL": gateway.url, "RELAY_URL": relay.url, "UPSTREAM_URL": upstream.url}
        environ |= {"CLAUDE_URL": claude.url, "ANTHROPIC_URL": server.url}
        printed = node.run("--test", "--test-reporter=tap", "anthropic.test.mjs", **environ)
    assert int(re.search(r"^# pass (\d+)$", printed, re.MULTILINE)[1]) > 20
    # The silence that it was to bear was there, told in each way.
    assert relay.down.count(b"\r\n:\n\r\n") > 4
    assert relay.down.count(b": keep-alive\n\n") > 4
    assert relay.down.count(b"event: ping\n") > 2
