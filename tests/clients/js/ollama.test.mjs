// Ollama's JavaScript client, unchanged but for its host. Run by tests/clients/test_ollama.py, which starts
// the gateway (PENSTOCK_URL).

import assert from "node:assert/strict";
import { test } from "node:test";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.env.PENSTOCK_URL });
const says = (content = "one two three", model = "demo-echo", more = {}) => ({
  model,
  messages: [{ role: "user", content }],
  ...more,
});

async function linesOf(request, into = []) {
  for await (const line of await client.chat({ ...request, stream: true })) into.push(line);
  return into;
}

const textOf = (lines) => lines.map((line) => line.message.content).join("");

test("a streamed answer is the whole answer", async () => {
  const lines = await linesOf(says());
  const whole = await client.chat(says());
  assert.equal(textOf(lines), "one two three");
  assert.equal(whole.message.content, "one two three");
  assert.equal(lines.at(-1).eval_count, whole.eval_count);
});

test("calls come whole", async () => {
  const parameters = { type: "object", properties: { city: { type: "string" } } };
  const tools = [{ type: "function", function: { name: "get_weather", description: "", parameters } }];
  const lines = await linesOf(says("Weather?", "demo-tools", { tools }));
  const calls = lines.flatMap((line) => line.message.tool_calls ?? []);
  assert.equal(calls.length, 2);
  assert.ok(calls.every((call) => "city" in call.function.arguments));
});

test("thoughts come apart", async () => {
  assert.ok((await linesOf(says("x", "demo-reasoning"))).some((line) => line.message.thinking));
});

test("what fails raises", async () => {
  await assert.rejects(client.chat(says("x", "nope")), { status_code: 404 });
  const lines = [];
  await assert.rejects(linesOf(says("Hello", "demo-cut"), lines));
  assert.ok(textOf(lines));
});

test("models are listed and known", async () => {
  assert.ok((await client.list()).models.some((model) => model.name === "demo"));
  assert.ok((await client.show({ model: "demo" })).capabilities.includes("completion"));
});
