// Responses with OpenAI's Node SDK: raw events and the SDK's own helper. Run by tests/clients/test_openai_node.py,
// which starts the gateway (PENSTOCK_URL).

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { PENSTOCK_URL } = process.env;

const client = new OpenAI({ baseURL: `${PENSTOCK_URL}/v1`, apiKey: "unused", maxRetries: 0 });
const { responses } = client;

const WEATHER = {
  type: "function",
  name: "get_weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

const says = (input = "one two three", model = "demo-echo", more = {}) => ({ model, input, ...more });

async function eventsOf(request, into = []) {
  for await (const event of await responses.create({ ...request, stream: true })) into.push(event);
  return into;
}

test("the helper puts together what an answer that does not stream says", async () => {
  for (const [model, more] of [["demo", {}], ["demo-reasoning", {}], ["demo-refusal", {}], ["demo-empty", {}], ["demo-tools", { tools: [WEATHER] }]]) {
    const streamed = await responses.stream(says("Weather?", model, more)).finalResponse();
    const whole = await responses.create(says("Weather?", model, more));
    assert.equal(streamed.output_text, whole.output_text, model);
    assert.deepEqual(streamed.output.map((item) => item.type), whole.output.map((item) => item.type), model);
    assert.deepEqual(streamed.usage, whole.usage, model);
    assert.equal(streamed.status, "completed", model);
  }
});

test("events are numbered, and a reader goes on after any of them", async () => {
  const events = await eventsOf(says());
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const rest = [];
  const id = events[0].response.id;
  for await (const event of await responses.retrieve(id, { stream: true, starting_after: 4 })) rest.push(event);
  assert.deepEqual(rest, events.slice(5));
  const helped = responses.stream({ response_id: id, starting_after: 4 });
  assert.equal((await helped.finalResponse()).output_text, "one two three");
});

test("a limit of tokens makes it incomplete", async () => {
  const events = await eventsOf(says("one two three", "demo-echo", { max_output_tokens: 2 }));
  assert.equal(events.at(-1).type, "response.incomplete");
});

test("a background response is asked for, cancelled and deleted", async () => {
  const { id, status } = await responses.create(says("one ".repeat(1000), "paced", { background: true }));
  assert.equal(status, "in_progress");
  assert.equal((await responses.cancel(id)).status, "cancelled");
  assert.equal((await responses.retrieve(id)).status, "cancelled");
  await responses.delete(id);
  await assert.rejects(responses.retrieve(id), { status: 410 });
});

test("what fails before any output is an error, after it a failed response", async () => {
  await assert.rejects(eventsOf(says("x", "nope")), { status: 404, code: "model_not_found" });
  await assert.rejects(eventsOf(says("x", "demo-rate-limited")), { status: 429 });
  const events = await eventsOf(says("Hello", "demo-cut"));
  assert.equal(events.at(-1).type, "response.failed");
  assert.ok(events.at(-1).response.error.message);
  await assert.rejects(responses.create(says("Hello", "demo-cut")), { status: 502 });
});

test("a conversation goes on from a response", async () => {
  const first = await responses.create(says("Weather?", "demo-tools", { tools: [WEATHER] }));
  const input = first.output
    .filter((item) => item.type === "function_call")
    .map((item) => ({ type: "function_call_output", call_id: item.call_id, output: "Sunny, 21 °C" }));
  const more = { tools: [WEATHER], previous_response_id: first.id };
  assert.match((await responses.create(says(input, "demo-tools", more))).output_text, /21 °C/);
});
