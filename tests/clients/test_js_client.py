"""The JavaScript client: its own tests, the copy that the gateway ships, and what it does for real."""

import gzip
import json
import re

import httpx
import pytest

from penstock.server import ui
from tests.clients import node
from tests.clients.relay import relaying
from tests.clients.test_page_sources import PAGES

EXAMPLES = re.findall(r"```js\n(.*?)```", (node.CLIENT / "README.md").read_text(), re.DOTALL)
BUDGET = 13 * 1024
"""Bytes of the whole client, minified and compressed. A page that imports a part gets less."""


def test_its_own_tests_pass():
    folder = node.client()
    printed = node.run("--test", "--test-reporter=tap", "test/", cwd=folder)
    assert int(re.search(r"^# pass (\d+)$", printed, re.MULTILINE)[1]) > 250
    assert "# fail 0" in printed


def test_the_shipped_client_is_what_is_built_from_the_sources(tmp_path):
    folder = node.client()
    node.run("bundle.mjs", str(tmp_path / "penstock.js"), cwd=folder)
    shipped = (PAGES / ui.CLIENT).read_bytes()
    assert shipped == (tmp_path / "penstock.js").read_bytes(), "`make js` renews it"
    assert len(gzip.compress(shipped, 9)) < BUDGET


def test_the_gateway_serves_it_to_pages(gateway):
    response = httpx.get(f"{gateway.url}/client/penstock.js")
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.content == (PAGES / ui.CLIENT).read_bytes()


def test_the_package_needs_nothing_at_run_time():
    package = json.loads((node.CLIENT / "package.json").read_text())
    assert "dependencies" not in package
    assert package["name"] == "penstock"


@pytest.mark.parametrize("example", EXAMPLES, ids=["iterate", "resume", "callbacks"])
def test_examples_of_its_readme_run(gateway, tmp_path, example):
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "penstock").symlink_to(node.client())
    (tmp_path / "example.mjs").write_text(example)
    printed = node.run("example.mjs", cwd=tmp_path, PENSTOCK_URL=gateway.url)
    assert "stream" in printed or "Hello" in printed
    assert "completed" in printed


OPENAI = """
import OpenAI from "openai";
import { durableFetch } from "penstock";

const openai = new OpenAI({
  baseURL: `${process.env.PENSTOCK_URL}/v1`, apiKey: "unused", maxRetries: 0, fetch: durableFetch(),
});
const chunks = await openai.chat.completions.create({
  model: "demo-echo", stream: true, messages: [{ role: "user", content: process.env.SAID }],
});
let text = "";
for await (const chunk of chunks) text += chunk.choices[0]?.delta?.content ?? "";
console.log(text);
"""


def test_an_sdk_with_its_fetch_does_not_notice_lost_connections(gateway, tmp_path):
    said = " ".join(f"word{number}" for number in range(60))
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "penstock").symlink_to(node.client())
    (modules / "openai").symlink_to(node.modules() / "openai")
    (tmp_path / "sdk.mjs").write_text(OPENAI)
    with relaying(gateway.url) as relay:
        relay.cuts = [700, 333, 1_500]
        printed = node.run("sdk.mjs", cwd=tmp_path, PENSTOCK_URL=relay.url, SAID=said)
        assert relay.cuts == []
    assert printed == said + "\n"
