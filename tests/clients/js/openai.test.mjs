// OpenAI's Node SDK, unchanged but for its base URL. Run by tests/clients/test_openai_node.py, which
// starts the gateway (PENSTOCK_URL), a way to it that remembers bytes (RELAY_URL) and an upstream that
// notices who leaves (UPSTREAM_URL).

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";

const { PENSTOCK_URL, RELAY_URL, UPSTREAM_URL } = process.env;

const client = new OpenAI({ baseURL: `${PENSTOCK_URL}/v1`, apiKey: "unused", maxRetries: 0 });
const { completions } = client.chat;

const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

function says(content = "one two three", model = "demo-echo", more = {}) {
  return { model, messages: [{ role: "user", content }], ...more };
}

async function chunksOf(request, options, into = []) {
  for await (const chunk of await completions.create({ ...request, stream: true }, options)) into.push(chunk);
  return into;
}

function textOf(chunks, index = 0) {
  const choices = chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index);
  return choices.map((choice) => choice.delta.content ?? "").join("");
}

function finishReasons(chunks) {
  return chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.finish_reason)).filter(Boolean);
}

async function until(condition) {
  for (let tries = 0; tries < 1000; tries++) {
    const found = await condition();
    if (found) return found;
    await sleep(10);
  }
  throw new Error("it did not happen");
}

const left = async () => (await (await fetch(UPSTREAM_URL)).json()).at(-1);

// --- answers ----------------------------------------------------------------------------------------

test("a streamed answer comes in pieces and is the whole answer", async () => {
  const chunks = await chunksOf(says());
  assert.deepEqual(chunks.map((c) => c.choices[0].delta.content), ["", "one", " two", " three", undefined]);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.deepEqual(finishReasons(chunks), ["stop"]);
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
});

test("an answer that does not stream is the same answer", async () => {
  const request = says("Tell me about streams.", "demo");
  const whole = await completions.create(request);
  assert.equal(whole.choices[0].message.content, textOf(await chunksOf(request)));
  assert.ok(whole.usage.total_tokens > 0);
});

test("usage comes in a last chunk of its own when it is asked for", async () => {
  const chunks = await chunksOf(says(undefined, undefined, { stream_options: { include_usage: true } }));
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.completion_tokens, 3);
  assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage === null));
});

test("usage does not come when it is not asked for", async () => {
  assert.ok((await chunksOf(says())).every((chunk) => !chunk.usage && chunk.choices.length === 1));
});

test("parallel tool calls come in fragments that join to JSON", async () => {
  const calls = [];
  for (const chunk of await chunksOf(says("Weather?", "demo-tools", { tools: [WEATHER] }))) {
    for (const piece of chunk.choices[0].delta.tool_calls ?? []) (calls[piece.index] ??= []).push(piece);
  }
  assert.equal(calls.length, 2);
  for (const pieces of calls) {
    assert.ok(pieces[0].id && pieces.slice(1).every((piece) => !piece.id));
    assert.equal(pieces[0].function.name, "get_weather");
    const joined = pieces.map((piece) => piece.function.arguments).join("");
    assert.deepEqual(Object.keys(JSON.parse(joined)), ["city"]);
  }
});

test("the stream helper accumulates tool calls", async () => {
  const request = says("Weather?", "demo-tools", { tools: [WEATHER] });
  const final = await completions.stream(request).finalChatCompletion();
  const whole = await completions.create(request);
  const called = ({ choices }) => choices[0].message.tool_calls.map((c) => [c.id, c.function.name, c.function.arguments]);
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  assert.deepEqual(called(final), called(whole));
  assert.equal(called(final).length, 2);
});

test("two choices are told apart", async () => {
  const chunks = await chunksOf(says("Hello", "demo", { n: 2 }));
  assert.ok(textOf(chunks, 0).startsWith("*Answer 1 of 2*"));
  assert.ok(textOf(chunks, 1).startsWith("*Answer 2 of 2*"));
  assert.deepEqual(finishReasons(chunks), ["stop", "stop"]);
});

test("reasoning comes apart from the answer", async () => {
  const chunks = await chunksOf(says("Hello", "demo-reasoning"));
  const thought = chunks.map((chunk) => chunk.choices[0].delta.reasoning_content ?? "").join("");
  const { message } = (await completions.create(says("Hello", "demo-reasoning"))).choices[0];
  assert.ok(thought);
  assert.equal(message.reasoning_content, thought);
});

test("a refusal is no content", async () => {
  const { message } = (await completions.stream(says("Hello", "demo-refusal")).finalChatCompletion()).choices[0];
  assert.ok(message.refusal);
  assert.ok(!message.content);
});

// --- errors -----------------------------------------------------------------------------------------

for (const stream of [false, true]) {
  const named = stream ? " (stream)" : "";

  test(`an unknown model is not found${named}`, async () => {
    await assert.rejects(completions.create({ ...says("Hello", "nope"), stream }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
      return true;
    });
  });

  test(`a rate limit is an error with the time to wait${named}`, async () => {
    await assert.rejects(completions.create({ ...says("Hello", "demo-rate-limited"), stream }), (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.equal(error.code, "rate_limit_exceeded");
      assert.equal(error.headers.get("retry-after"), "2");
      assert.match(error.requestID, /^req_/);
      return true;
    });
  });

  test(`an overloaded provider is a server error${named}`, async () => {
    await assert.rejects(completions.create({ ...says("Hello", "demo-overloaded"), stream }), (error) => {
      assert.ok(error instanceof OpenAI.InternalServerError);
      assert.deepEqual([error.status, error.code], [503, "overloaded"]);
      return true;
    });
  });
}

test("a bad request says which parameter is bad", async () => {
  await assert.rejects(completions.create({ model: "demo", messages: [] }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "messages");
    return true;
  });
});

test("the SDK retries a rate limit when it was told to", async () => {
  const began = performance.now();
  const request = says("Hello", "demo-rate-limited", { penstock_script: { retry_after: 1 }, stream: true });
  await assert.rejects(completions.create(request, { maxRetries: 1 }), OpenAI.RateLimitError);
  assert.ok(performance.now() - began >= 990); // its own back-off would be over sooner
});

for (const [model, code] of [
  ["demo-error", "upstream_error"],
  ["demo-cut", "upstream_reset"],
  ["demo-truncated", "upstream_truncated"],
]) {
  test(`an answer that breaks off raises after what came (${model})`, async () => {
    const chunks = [];
    await assert.rejects(chunksOf(says("Hello", model), {}, chunks), (error) => {
      assert.ok(error instanceof OpenAI.APIError);
      assert.equal(error.code, code);
      return true;
    });
    assert.ok(textOf(chunks));
    assert.deepEqual(finishReasons(chunks), []);
  });

  test(`an answer that breaks off is an error where nothing streams (${model})`, async () => {
    await assert.rejects(completions.create(says("Hello", model)), (error) => {
      assert.ok(error instanceof OpenAI.InternalServerError);
      assert.deepEqual([error.status, error.code], [502, code]);
      return true;
    });
  });
}

// --- leaving, silence, coming back ------------------------------------------------------------------

test("breaking off stops the model", async () => {
  let count = 0;
  for await (const _ of await completions.create({ ...says("Hello", "endless"), stream: true })) {
    if (++count === 5) break;
  }
  assert.ok(await until(left));
});

test("aborting stops the model and closes the stream as cancelled", async () => {
  const stream = await completions.create({ ...says("Hello", "endless"), stream: true });
  let id = "";
  for await (const chunk of stream) {
    id = chunk.id;
    stream.controller.abort();
  }
  assert.ok(await until(left));
  const closed = await until(async () => {
    const found = await (await fetch(`${PENSTOCK_URL}/v1/streams/${id}`)).json();
    return found.status !== "open" && found;
  });
  assert.deepEqual([closed.status, closed.end.code], ["cancelled", "client_disconnected"]);
});

for (const [name, options] of [
  ["ids by Accept", { headers: { Accept: "text/event-stream" } }],
  ["ids by query", { query: { ids: "1" } }],
  ["no ids", {}],
]) {
  for (const model of ["pausing", "slow-start"]) {
    test(`heartbeats do not disturb it (${name}, ${model})`, async () => {
      const relayed = new OpenAI({ baseURL: `${RELAY_URL}/v1`, apiKey: "unused", maxRetries: 0 });
      const chunks = [];
      const request = { ...says("Hello", model), stream: true };
      for await (const chunk of await relayed.chat.completions.create(request, options)) chunks.push(chunk);
      assert.deepEqual(finishReasons(chunks), ["stop"]);
    });
  }
}

test("the same idempotency key gives the same answer", async () => {
  const options = { headers: { "Idempotency-Key": "node" } };
  const first = await completions.create(says(), options);
  assert.deepEqual(await completions.create(says(), options), first);
  await assert.rejects(completions.create(says("something else"), options), (error) => {
    assert.ok(error instanceof OpenAI.UnprocessableEntityError);
    assert.equal(error.code, "idempotency_key_reused");
    return true;
  });
});

test("the same idempotency key gives the same stream", async () => {
  const options = { headers: { "Idempotency-Key": "node-stream" } };
  assert.deepEqual(await chunksOf(says(), options), await chunksOf(says(), options));
});

// --- models and headers -----------------------------------------------------------------------------

test("models are listed and found", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("demo") && names.includes("endless"));
  assert.equal((await client.models.retrieve("demo")).id, "demo");
  await assert.rejects(client.models.retrieve("nope"), OpenAI.NotFoundError);
});

test("headers name the stream and the request", async () => {
  const { data, response, request_id } = await completions.create(says()).withResponse();
  assert.match(response.headers.get("stream-id"), /^s_/);
  assert.match(request_id, /^req_/);
  assert.equal(data._request_id, request_id);
});
