"""The Durable Streams protocol's own conformance suite, whole, against a gateway as people start it.

Its tests of expiry wait for seconds to pass, so one that a busy machine kept waiting is tried again.
"""

import json

import pytest

from tests.clients import node
from tests.clients.gateway import serving

pytestmark = pytest.mark.timeout(240)

SETTINGS = {
    "listen": {"allowed_origins": ["https://example.com"]},  # the suite's page elsewhere
    "publications": {"long_poll": 0.5},
}
COUNT = 332
"""All of its tests but the six of subscriptions, which are an option of the protocol."""


def test_all_tests_of_the_protocol_pass(tmp_path):
    found = tmp_path / "found.json"
    with serving(tmp_path / "gateway", SETTINGS) as gateway:
        node.run(
            str(node.modules() / "vitest" / "vitest.mjs"),
            "run",
            "durable.conformance.test.mjs",
            "--retry=2",
            "--testTimeout=30000",
            "--reporter=json",
            f"--outputFile={found}",
            patience=200,
            CONFORMANCE_URL=gateway.url,
            LONG_POLL_MS="500",
        )
    report = json.loads(found.read_text())
    assert (report["numPassedTests"], report["numFailedTests"]) == (COUNT, 0)
