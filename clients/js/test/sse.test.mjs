import assert from "node:assert/strict";
import test from "node:test";
import { SseDecoder, SseSplitter } from "../dist/sse.js";
import { cuttings, load } from "./vectors.mjs";

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

for (const vector of load("sse")) {
  const input = vector.input_base64 ? Buffer.from(vector.input_base64, "base64") : Buffer.from(vector.input);
  const inputs = [input];
  if (vector.line_ends === "any") for (const end of ["\r", "\r\n"]) inputs.push(Buffer.from(input.toString().replaceAll("\n", end)));
  const wanted = vector.frames.map(({ event, data, data_base64, id }) => ({
    event,
    data: data_base64 ? utf8.decode(Buffer.from(data_base64, "base64")) : data,
    id,
  }));
  // A body that ends within an event says nothing of it; a lenient reader is not what this one is.
  if (vector.end === "lenient" && !/(\n\n|\r\r|\r\n\r\n|^)$/.test(vector.input ?? "")) continue;

  test(`${vector.name} means the same however it is cut`, () => {
    for (const bytes of inputs) {
      for (const pieces of cuttings(bytes)) {
        const decoder = new SseDecoder();
        const got = pieces.flatMap((piece) => decoder.feed(piece));
        assert.deepEqual(got, wanted);
        assert.equal(decoder.retry ?? null, vector.retry);
        assert.equal(decoder.lastEventId, vector.last_event_id);
      }
    }
  });

  test(`${vector.name} is the same as text`, { skip: !vector.input }, () => {
    const decoder = new SseDecoder();
    assert.deepEqual(Array.from(vector.input ?? "").flatMap((c) => decoder.feed(c)), wanted);
  });

  test(`${vector.name} is cut into blocks that are the whole`, () => {
    for (const bytes of inputs) {
      for (const pieces of cuttings(bytes)) {
        const splitter = new SseSplitter();
        const blocks = pieces.flatMap((piece) => splitter.feed(piece));
        const size = blocks.reduce((sum, block) => sum + block.length, 0);
        assert.equal(size + splitter.held, bytes.length);
        assert.deepEqual(Buffer.concat(blocks), Buffer.from(bytes.subarray(0, size)));
        const decoder = new SseDecoder();
        const each = blocks.map((block) => decoder.feed(block));
        assert.ok(each.every((events) => events.length <= 1));
        if (!splitter.held) assert.deepEqual(each.flat(), wanted);
      }
    }
  });
}

test("an event above the limit is refused, and not collected", () => {
  const piece = `data: ${"x".repeat(1024 * 1024)}\n`;
  const decoder = new SseDecoder();
  assert.throws(() => Array.from({ length: 5 }, () => decoder.feed(piece)), RangeError);
  const splitter = new SseSplitter();
  assert.throws(() => Array.from({ length: 5 }, () => splitter.feed(Buffer.from(piece))), RangeError);
});

test("heartbeats are counted", () => {
  const decoder = new SseDecoder();
  assert.deepEqual(decoder.feed(":\n:\n: ping\n\n"), []);
  assert.equal(decoder.comments, 3);
});
