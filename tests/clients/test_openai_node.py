"""OpenAI's Node SDK, unchanged but for its base URL. What it does is in js/openai.test.mjs."""

import re

from tests.clients import node


def test_the_node_sdk_works_unchanged(gateway, relay, upstream):
    node.modules()
    environ = {"PENSTOCK_URL": gateway.url, "RELAY_URL": relay.url, "UPSTREAM_URL": upstream.url}
    printed = node.run("--test", "--test-reporter=tap", "openai.test.mjs", **environ)
    assert int(re.search(r"^# pass (\d+)$", printed, re.MULTILINE)[1]) > 25
    # The heartbeats that it was to survive were there, in both forms.
    assert relay.down.count(b"\r\n:\n\r\n") > 4
    assert relay.down.count(b": keep-alive\n\n") > 4


def test_its_responses_work_unchanged(gateway):
    node.modules()
    printed = node.run("--test", "--test-reporter=tap", "openai_responses.test.mjs", PENSTOCK_URL=gateway.url)
    assert int(re.search(r"^# pass (\d+)$", printed, re.MULTILINE)[1]) == 6
