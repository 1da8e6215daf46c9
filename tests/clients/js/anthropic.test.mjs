// Anthropic's TypeScript SDK, unchanged but for its base URL. Run by tests/clients/test_anthropic_node.py,
// which starts a gateway in front of models that are none of Anthropic's (PENSTOCK_URL), a way to it that
// remembers bytes (RELAY_URL), an upstream that notices who leaves (UPSTREAM_URL), and a gateway in front of
// an Anthropic (CLAUDE_URL), which notices that too (ANTHROPIC_URL).

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import Anthropic from "@anthropic-ai/sdk";

const { PENSTOCK_URL, RELAY_URL, UPSTREAM_URL, CLAUDE_URL, ANTHROPIC_URL } = process.env;

const connect = (baseURL) => new Anthropic({ baseURL, apiKey: "unused", maxRetries: 0 });
const { messages, models } = connect(PENSTOCK_URL);
const claude = connect(CLAUDE_URL).messages;

const WEATHER = {
  name: "get_weather",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

function says(content = "one two three", model = "demo-echo", more = {}) {
  return { model, max_tokens: 4096, messages: [{ role: "user", content }], ...more };
}

async function eventsOf(stream, into = []) {
  for await (const event of stream) into.push(event);
  return into;
}

async function until(condition) {
  for (let tries = 0; tries < 1000; tries++) {
    const found = await condition();
    if (found) return found;
    await sleep(10);
  }
  throw new Error("it did not happen");
}

const left = async (url) => (await (await fetch(url)).json()).at(-1);
const called = (message) => message.content.filter((b) => b.type === "tool_use").map((b) => [b.id, b.name, b.input]);

// --- any model ---------------------------------------------------------------------------------------

test("a streamed answer comes in the order that is wanted", async () => {
  const events = await eventsOf(await messages.create({ ...says(), stream: true }));
  assert.deepEqual(events.map((event) => event.type), [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_delta",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
  ]);
  assert.match(events[0].message.id, /^msg_/);
});

test("the stream helper's message is the whole answer", async () => {
  const request = says("Tell me about streams.", "demo");
  const stream = messages.stream(request);
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  const whole = await messages.create(request);
  assert.equal(final.content[0].text, whole.content[0].text);
  assert.equal(text, whole.content[0].text);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  assert.equal(final.stop_reason, "end_turn");
});

test("parallel tool calls come one after the other", async () => {
  const request = says("Weather?", "demo-tools", { tools: [WEATHER] });
  const stream = messages.stream(request);
  const blocks = [];
  stream.on("contentBlock", (block) => block.type === "tool_use" && blocks.push(block.input));
  const final = await stream.finalMessage();
  assert.equal(final.stop_reason, "tool_use");
  assert.equal(called(final).length, 2);
  assert.deepEqual(blocks, called(final).map(([, , input]) => input));
  assert.deepEqual(called(await messages.create(request)), called(final));
});

test("a tool's result is answered", async () => {
  const choice = { type: "auto", disable_parallel_tool_use: true };
  const request = says("Weather?", "demo-tools", { tools: [WEATHER], tool_choice: choice });
  const { role, content } = await messages.create(request);
  const [[id]] = called({ content });
  const result = { type: "tool_result", tool_use_id: id, content: "Sunny, 21 °C" };
  request.messages.push({ role, content }, { role: "user", content: [result] });
  assert.match((await messages.stream(request).finalMessage()).content[0].text, /Sunny, 21 °C/);
});

test("reasoning is a block before the answer", async () => {
  const { content } = await messages.stream(says("Hello", "demo-reasoning")).finalMessage();
  assert.deepEqual(content.map((block) => block.type), ["thinking", "text"]);
  assert.ok(content[0].thinking);
});

test("a refusal says so, and an empty answer is one", async () => {
  assert.equal((await messages.stream(says("Hello", "demo-refusal")).finalMessage()).stop_reason, "refusal");
  assert.deepEqual((await messages.stream(says("Hello", "demo-empty")).finalMessage()).content, []);
});

test("tokens are counted and models listed", async () => {
  assert.ok((await messages.countTokens({ model: "demo", messages: says().messages })).input_tokens > 0);
  const names = [];
  for await (const model of models.list({ limit: 4 })) names.push(model.id);
  assert.ok(names.includes("demo") && names.includes("endless"));
  assert.equal((await models.retrieve("demo")).type, "model");
});

// --- errors ------------------------------------------------------------------------------------------

for (const stream of [false, true]) {
  const named = stream ? " (stream)" : "";

  test(`an unknown model is not found${named}`, async () => {
    await assert.rejects(messages.create({ ...says("Hello", "nope"), stream }), (error) => {
      assert.ok(error instanceof Anthropic.NotFoundError);
      assert.equal(error.error.error.type, "not_found_error");
      assert.match(error.requestID, /^req_/);
      return true;
    });
  });

  test(`a rate limit says how long to wait${named}`, async () => {
    await assert.rejects(claude.create({ ...says("Hello", "claude-limited"), stream }), (error) => {
      assert.ok(error instanceof Anthropic.RateLimitError);
      assert.equal(error.headers.get("retry-after"), "7");
      return true;
    });
  });

  test(`an overloaded provider is overloaded${named}`, async () => {
    await assert.rejects(claude.create({ ...says("Hello", "claude-overloaded"), stream }), (error) => {
      assert.deepEqual([error.status, error.error.error.type], [529, "overloaded_error"]);
      return true;
    });
  });
}

for (const model of ["claude-breaks", "claude-truncates", "claude-resets"]) {
  test(`an answer that breaks off raises after what came (${model})`, async () => {
    const events = [];
    const stream = await claude.create({ ...says("Hello you", model), stream: true });
    await assert.rejects(eventsOf(stream, events), (error) => {
      assert.ok(error instanceof Anthropic.APIError);
      return true;
    });
    assert.ok(events.some((event) => event.type === "content_block_delta"));
    assert.ok(!events.some((event) => event.type === "message_stop"));
    await assert.rejects(claude.stream(says("Hello you", model)).finalMessage(), Anthropic.APIError);
  });
}

// --- Claude ------------------------------------------------------------------------------------------

test("thoughts come with their signatures and go back", async () => {
  const request = says("one two", "claude-thinker", { thinking: { type: "adaptive" } });
  const { role, content } = await claude.stream(request).finalMessage();
  assert.deepEqual(content.map((block) => block.type), ["thinking", "redacted_thinking", "text"]);
  assert.ok(content[0].signature);
  request.messages.push({ role, content }, { role: "user", content: "And?" });
  assert.equal((await claude.create(request)).content.at(-1).text, "And?");
});

test("what only Anthropic knows comes through", async () => {
  const { content } = await claude.stream(says("Hello", "claude-searcher")).finalMessage();
  assert.deepEqual(content.map((b) => b.type), ["server_tool_use", "web_search_tool_result", "text"]);
  assert.deepEqual(content[0].input, { query: "x" });
  assert.equal(content[2].citations[0].cited_text, "x");
});

// --- leaving, silence --------------------------------------------------------------------------------

test("breaking off stops the model", async () => {
  let count = 0;
  for await (const _ of await messages.create({ ...says("Hello", "endless"), stream: true })) {
    if (++count === 5) break;
  }
  assert.ok(await until(() => left(UPSTREAM_URL)));
});

test("aborting reaches Anthropic", async () => {
  const stream = claude.stream(says("Hello", "claude-endless"));
  stream.on("text", () => stream.abort());
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
  assert.ok(await until(() => left(`${ANTHROPIC_URL}/left`)));
});

for (const [name, options] of [
  ["ids by Accept", { headers: { Accept: "text/event-stream" } }],
  ["ids by query", { query: { ids: "1" } }],
  ["no ids", {}],
]) {
  for (const model of ["pausing", "slow-start"]) {
    test(`silence does not disturb it (${name}, ${model})`, async () => {
      const final = await connect(RELAY_URL).messages.stream(says("Hello", model), options).finalMessage();
      assert.equal(final.stop_reason, "end_turn");
    });
  }
}
