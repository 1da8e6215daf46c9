import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { Lost, MOST_AFTER, PenstockError, secondsOf } from "../dist/errors.js";
import { MAX_WAITING } from "../dist/stream.js";
import { delayOf, Penstock } from "../dist/index.js";
import { FakeClock } from "./clock.mjs";

const ID = "s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F";
const cursor = (n) => `${ID}~${String(n).padStart(16, "0")}`;

/** The records of a whole answer. */
function log(...pieces) {
  const records = pieces.map((delta, i) => JSON.stringify({ n: i + 1, type: "text", delta }));
  const sha256 = createHash("sha256").update(records.map((record) => `${record}\n`).join("")).digest("hex");
  const text_sha256 = createHash("sha256").update(pieces.join("")).digest("hex");
  const end = { n: records.length + 1, type: "end", status: "completed", entries: records.length, sha256, text_sha256 };
  return [...records, JSON.stringify(end)];
}

/** A way that plays one function for each connection, and keeps what was asked. */
function client(plays, options = {}) {
  const asks = [];
  const clock = new FakeClock();
  const transport = {
    asks,
    async carry(ask, sink, signal) {
      asks.push(ask);
      const play = plays.shift();
      if (!play) throw new Error("one connection too many");
      return play(sink, signal, ask);
    },
    close() {},
  };
  return { clock, asks, penstock: new Penstock({ url: "http://gateway", transport, clock, ...options }) };
}

function give(sink, records, from, to = records.length) {
  sink.opened(ID);
  for (let n = from; n <= to; n += 1) sink.entry(records[n - 1], cursor(n));
}

const whole = log("a", "流", "🌊");

test("an answer is iterated to its end, and verified", async () => {
  const { penstock } = client([(sink) => (give(sink, whole, 1), "ended")]);
  const stream = penstock.start({ model: "m" });
  const seen = [];
  for await (const entry of stream) seen.push(entry.n);
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.equal(stream.text, "a流🌊");
  assert.ok(stream.verified);
});

test("after a loss the reader goes on behind its last entry", async () => {
  const { penstock, clock, asks } = client([
    (sink) => (give(sink, whole, 1, 2), "ended"),
    (sink) => (give(sink, whole, 3), "ended"),
  ]);
  const stream = penstock.start({ model: "m" });
  const retries = [];
  stream.onretry = (retry) => retries.push(retry);
  const result = stream.result();
  await clock.advance(1000);
  assert.equal((await result).text, "a流🌊");
  assert.deepEqual(retries, [{ attempt: 1, delay: 250, reason: "ended" }]);
  assert.equal(asks[0].creation.method, "POST");
  assert.deepEqual([asks[1].stream, asks[1].cursor], [ID, cursor(2)]);
});

test("what was there before is passed over, and what is missing is read again", async () => {
  const { penstock, clock, asks } = client([
    (sink) => (give(sink, whole, 1, 2), give(sink, whole, 1, 1), give(sink, whole, 4), "ended"),
    (sink) => (give(sink, whole, 3), "ended"),
  ]);
  const stream = penstock.start({ model: "m" });
  const result = stream.result();
  await clock.advance(1000);
  assert.equal((await result).text, "a流🌊");
  assert.equal(asks[1].cursor, cursor(2));
});

test("an entry that is not what was stored is found out", async () => {
  const forged = [whole[0].replace('"a"', '"b"'), ...whole.slice(1)];
  const { penstock } = client([(sink) => (give(sink, forged, 1), "ended")]);
  const stream = penstock.start({ model: "m" });
  await assert.rejects(stream.result(), { code: "unverified" });
  assert.ok(!stream.verified);
});

test("a start whose response was lost is repeated with its key", async () => {
  const lost = () => {
    throw new TypeError("fetch failed");
  };
  const { penstock, clock, asks } = client([lost, lost, (sink) => (give(sink, whole, 1), "ended")]);
  const result = penstock.start({ model: "m" }).result();
  await clock.advance(5000);
  await result;
  assert.equal(asks.length, 3);
  assert.equal(new Set(asks.map((ask) => ask.creation.key)).size, 1);
});

test("a refusal is an error at once; a busy gateway is one only where nothing can have been started", async () => {
  const refuse = (status, code, retryable) => () => {
    throw new PenstockError(code, "No.", status, retryable);
  };
  const first = client([refuse(503, "overloaded", true)]);
  await assert.rejects(first.penstock.start({}).result(), { code: "overloaded" });
  const second = client([
    () => {
      throw new TypeError("lost");
    },
    refuse(503, "overloaded", true),
    (sink) => (give(sink, whole, 1), "ended"),
  ]);
  const result = second.penstock.start({}).result();
  await second.clock.advance(5000);
  await result;
});

test("silence counts as a loss", async () => {
  const { penstock, clock } = client([
    (sink, signal) => (give(sink, whole, 1, 1), new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Lost("aborted"))))),
    (sink) => (give(sink, whole, 2), "ended"),
  ]);
  const stream = penstock.start({});
  const retries = [];
  stream.onretry = ({ reason }) => retries.push(reason);
  const result = stream.result();
  await clock.advance(44_000);
  assert.deepEqual(retries, []);
  await clock.advance(3_000);
  await result;
  assert.deepEqual(retries, ["silent"]);
});

test("attempts are bounded where that is asked for", async () => {
  const lost = () => {
    throw new TypeError("lost");
  };
  const { penstock, clock } = client([lost, lost, lost], { backoff: { attempts: 2 } });
  const result = penstock.start({}).result();
  const refused = assert.rejects(result, { code: "unreachable", retryable: true });
  await clock.advance(60_000);
  await refused;
});

test("a log that lost its tail is read again from its start, and the reader is told", async () => {
  const { penstock } = client([
    (sink) => (give(sink, log("x", "y"), 1, 2), sink.failed("log_lost", "", false), "ended"),
    (sink) => (give(sink, whole, 1), "ended"),
  ]);
  const stream = penstock.start({});
  const seen = [];
  for await (const entry of stream) seen.push(entry.type === "restarted" ? "restarted" : entry.n);
  assert.deepEqual(seen, [1, 2, "restarted", 1, 2, 3, 4]);
  assert.equal(stream.text, "a流🌊");
});

test("an abort ends the reading, and so does leaving the loop", async () => {
  const hang = (sink, signal) => (give(sink, whole, 1, 1), new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Lost("aborted")))));
  const { penstock } = client([hang, hang]);
  const abort = new AbortController();
  const result = penstock.start({}, { signal: abort.signal }).result();
  abort.abort();
  await assert.rejects(result, { code: "aborted" });
  const stream = penstock.start({});
  for await (const entry of stream) if (entry.n === 1) break;
  assert.equal(stream.phase, "closed");
});

test("an answer that failed is no success, to none of the three ways of reading", async () => {
  const failed = JSON.stringify({ n: 2, type: "end", status: "failed", code: "upstream_reset", message: "Gone.", entries: 1, retryable: true });
  const records = [whole[0], failed];
  const [sha256, text_sha256] = [`${whole[0]}\n`, "a"].map((text) => createHash("sha256").update(text).digest("hex"));
  records[1] = JSON.stringify({ ...JSON.parse(failed), sha256, text_sha256 });
  const play = (sink) => (give(sink, records, 1), "ended");
  const { penstock } = client([play, play, play]);
  await assert.rejects(penstock.start({}).result(), { code: "upstream_reset", retryable: true });
  const seen = [];
  await assert.rejects(async () => {
    for await (const entry of penstock.start({})) seen.push(entry.type);
  }, PenstockError);
  assert.deepEqual(seen, ["text", "end"]);
  const stream = penstock.start({});
  const told = [];
  stream.onerror = (error) => told.push(error.code);
  await new Promise((resolve) => (stream.onclose = (end) => resolve(told.push(end.status))));
  assert.deepEqual(told, ["upstream_reset", "failed"]);
});

test("nobody who is slow makes the queue grow", async () => {
  const long = log(...Array.from({ length: MAX_WAITING + 50 }, () => "x"));
  let waited = 0;
  const { penstock } = client([
    async (sink) => {
      sink.opened(ID);
      for (let n = 1; n <= long.length; n += 1) {
        sink.entry(long[n - 1], cursor(n));
        const ready = sink.ready();
        if (ready) {
          waited += 1;
          await ready;
        }
      }
      return "ended";
    },
  ]);
  const stream = penstock.start({});
  await new Promise(setImmediate);
  assert.equal(waited, 1);
  let count = 0;
  for await (const entry of stream) count += entry.n > 0;
  assert.equal(count, long.length);
});

test("delays double up to a bound, and any part of them may be waited", () => {
  const backoff = { first: 500, most: 30_000, attempts: 9 };
  assert.deepEqual([1, 2, 3, 7, 100].map((attempt) => delayOf(backoff, attempt, () => 1)), [500, 1000, 2000, 30_000, 30_000]);
  assert.equal(delayOf(backoff, 3, () => 0), 0);
});

test("who asks to be left alone is left alone, also when the network comes back", async () => {
  const page = new EventTarget();
  const { addEventListener, removeEventListener } = globalThis;
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  try {
    const busy = () => {
      throw new PenstockError("overloaded", "No.", 503, true, 20);
    };
    const lost = (sink) => (give(sink, whole, 1, 1), "ended");
    const { penstock, clock, asks } = client([lost, busy, lost, (sink) => (give(sink, whole, 2), "ended")]);
    const result = penstock.start({}).result();
    await clock.settle();
    page.dispatchEvent(new Event("online"));
    await clock.settle();
    assert.equal(asks.length, 2);
    page.dispatchEvent(new Event("online"));
    document.dispatchEvent(new Event("visibilitychange"));
    await clock.advance(19_999);
    assert.equal(asks.length, 2);
    await clock.advance(1);
    assert.equal(asks.length, 3);
    // A page that is looked at again does not wait.
    document.dispatchEvent(new Event("visibilitychange"));
    await clock.settle();
    await result;
  } finally {
    Object.assign(globalThis, { addEventListener, removeEventListener });
    delete globalThis.document;
  }
});

test("Retry-After is seconds or a date, and is not believed without end", () => {
  const now = Date.parse("2026-11-27T00:00:00Z");
  const date = (seconds) => new Date(now + seconds * 1000).toUTCString();
  const values = [[null, 0], ["2", 2], ["1.5", 1.5], [date(30), 30], [date(-30), 0], ["soon", 0], ["-3", 0], ["99999999", MOST_AFTER], [date(1e8), MOST_AFTER]];
  for (const [text, seconds] of values) assert.equal(secondsOf(text, now), seconds, text);
});

test("two loops over one stream end, and have each entry once together", async () => {
  const { penstock } = client([async (sink) => (await new Promise(setImmediate), give(sink, whole, 1), "ended")]);
  const stream = penstock.start({});
  const seen = [];
  const loop = async () => {
    for await (const { n } of stream) seen.push(n);
  };
  await Promise.all([loop(), loop()]);
  assert.deepEqual(seen.sort(), [1, 2, 3, 4]);
});

test("an abort says why", async () => {
  const { penstock } = client([() => new Promise(() => {})]);
  const abort = new AbortController();
  const result = penstock.read(ID, { signal: abort.signal }).result();
  const why = new Error("the page was left");
  abort.abort(why);
  await assert.rejects(result, (error) => error.code === "aborted" && error.cause === why);
});

test("after ten thousand messages that were read slowly nothing is held on to", async () => {
  const long = log(...Array.from({ length: 10_000 }, () => "x"));
  const listening = new Map();
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  const count = (by) => function (...what) {
    if (this instanceof AbortSignal) listening.set(this, (listening.get(this) ?? 0) + by);
    return (by > 0 ? addEventListener : removeEventListener).apply(this, what);
  };
  Object.assign(EventTarget.prototype, { addEventListener: count(1), removeEventListener: count(-1) });
  let most = 0;
  try {
    const { penstock } = client([
      async (sink, signal) => {
        sink.opened(ID);
        for (let n = 1; n <= long.length; n += 1) {
          sink.entry(long[n - 1], cursor(n));
          await sink.ready();
          most = Math.max(most, listening.get(signal) ?? 0);
        }
        return "ended";
      },
    ]);
    const abort = new AbortController();
    let entries = 0;
    for await (const _ of penstock.start({}, { signal: abort.signal })) entries += 1;
    assert.equal(entries, long.length);
    await new Promise(setImmediate);
    assert.equal(listening.get(abort.signal), 0);
    assert.ok(most <= 2, `${most} listeners at a time`);
  } finally {
    Object.assign(EventTarget.prototype, { addEventListener, removeEventListener });
  }
});

test("nobody who does not look is an unhandled rejection", async () => {
  const unhandled = [];
  const note = (error) => unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    const refuse = () => {
      throw new PenstockError("invalid_request", "No.", 400);
    };
    const { penstock, clock } = client([refuse, refuse]);
    penstock.start({});
    penstock.read(ID, { signal: AbortSignal.abort() });
    await clock.settle();
    await new Promise(setImmediate);
    assert.deepEqual(unhandled, []);
  } finally {
    process.off("unhandledRejection", note);
  }
});
