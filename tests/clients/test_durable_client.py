"""The Durable Streams protocol's own TypeScript client, behind a proxy that cuts cleanly, loses nothing."""

import json
from itertools import pairwise

from tests.clients import node

COUNT = 200


def test_it_loses_nothing_by_clean_cuts(gateway):
    node.modules()
    found = json.loads(node.run("durable.client.mjs", GATEWAY_URL=gateway.url, COUNT=str(COUNT)))
    assert found["cuts"] > 5
    messages = [{"n": n, "text": "é" * (n % 50)} for n in range(COUNT)]
    assert found["long-poll"] == messages
    # By its nature the SSE mode repeats what was cut off from its `control`, and the client shows it again.
    shown = [message["n"] for message in found["sse"]]
    assert all(later <= earlier + 1 for earlier, later in pairwise(shown))
    assert {message["n"]: message for message in found["sse"]} == dict(enumerate(messages))
