import assert from "node:assert/strict";
import test from "node:test";
import { Penstock } from "../dist/index.js";
import { FakeClock } from "./clock.mjs";

const ID = "s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F";
const cursor = (n) => `${ID}~${String(n).padStart(16, "0")}`;

/** A client whose sockets are in the test's hands. */
function client(options = {}) {
  const sockets = [];
  const clock = new FakeClock();
  class Socket {
    readyState = 0;
    said = [];
    constructor(url) {
      this.url = url;
      sockets.push(this);
    }
    send(text) {
      this.said.push(JSON.parse(text));
    }
    close() {
      this.readyState = 3;
    }
    async open() {
      this.readyState = 1;
      this.onopen();
      await clock.settle();
    }
    tell(message) {
      this.onmessage({ data: JSON.stringify(message) });
    }
    lose(code) {
      this.readyState = 3;
      this.onclose({ code });
    }
    of(type) {
      return this.said.filter((message) => message.type === type);
    }
    /** Answer what was asked last. */
    entry(n, delta) {
      this.tell({ type: "entry", rid: this.rid, c: cursor(n), ev: "delta", d: { n, type: "text", delta } });
    }
    get rid() {
      return this.said.filter(({ type }) => type === "create" || type === "read").at(-1).rid;
    }
  }
  const penstock = new Penstock({ url: "http://gateway", transport: "websocket", WebSocket: Socket, clock, ...options });
  return { clock, sockets, penstock };
}

async function started(options) {
  const all = client(options);
  const stream = all.penstock.start({ model: "m" });
  stream.onmessage = () => {};
  await all.clock.settle();
  await all.sockets[0].open();
  return { ...all, stream, socket: all.sockets[0] };
}

test("a token is said first, and again before its time is over", async () => {
  const asked = [];
  const token = (refresh) => (asked.push(refresh), `token${asked.length}`);
  const { clock, socket, sockets } = await started({ token });
  assert.deepEqual(socket.said.map(({ type }) => type), ["auth", "create"]);
  socket.tell({ type: "authed", expires_in: 600 });
  for (let passed = 0; passed < 530; passed += 10) {
    await clock.advance(10_000);
    socket.tell({ type: "pong" });
  }
  assert.equal(socket.of("auth").length, 1);
  await clock.advance(10_000);
  assert.deepEqual(socket.of("auth").map(({ token }) => token), ["token1", "token2"]);
  assert.deepEqual(asked, [false, true]);
  socket.tell({ type: "authed", expires_in: 10 });
  await clock.advance(8_000);
  assert.equal(socket.of("auth").length, 3);
  assert.equal(sockets.length, 1);
});

test("a token that is refused is replaced once, and then it is an error", async () => {
  const asked = [];
  const { clock, sockets, stream, socket } = await started({ token: (refresh) => (asked.push(refresh), "t") });
  const result = assert.rejects(stream.result(), { code: "unauthenticated", status: 401 });
  socket.lose(4401);
  await clock.advance(1_000);
  await sockets[1].open();
  assert.deepEqual(asked, [false, true]);
  sockets[1].lose(4401);
  await clock.advance(5_000);
  if (sockets[2]) {
    await sockets[2].open();
    sockets[2].lose(4401);
  }
  await result;
});

test("a key that is refused is an error at once", async () => {
  const { stream, socket } = await started({ token: "key" });
  const result = assert.rejects(stream.result(), { code: "unauthenticated" });
  socket.lose(4401);
  await result;
});

test("credit is given for what was worked off, and not to a reader that waits", async () => {
  const { clock, penstock, sockets } = client();
  const stream = penstock.start({ model: "m" });
  await clock.settle();
  const [socket] = sockets;
  await socket.open();
  socket.tell({ type: "open", rid: socket.rid, stream: ID, status: "open", tail: 0, c: cursor(0) });
  let n = 0;
  const long = "x".repeat(1000);
  while (n < 1030) socket.entry((n += 1), long);
  await clock.settle();
  const before = socket.of("credit").length;
  assert.ok(before >= 20);
  for (let more = 0; more < 60; more += 1) socket.entry((n += 1), long);
  await clock.settle();
  assert.equal(socket.of("credit").length, before, "the queue is full");
  let taken = 0;
  for await (const entry of stream) if (entry.n && ++taken === n) break;
  await clock.settle();
  const sum = socket.of("credit").reduce((all, { bytes }) => all + bytes, 0);
  assert.ok(socket.of("credit").length > before);
  assert.ok(sum >= (n - 50) * 1000, "nothing that was taken is forgotten");
});

test("a gateway that leaves sends what runs, and what is new asks another", async () => {
  const { clock, penstock, sockets, socket, stream } = await started();
  socket.tell({ type: "open", rid: socket.rid, stream: ID, status: "open", tail: 0, c: cursor(0) });
  socket.entry(1, "a");
  socket.tell({ type: "goaway", retry_ms: 4000 });
  const other = penstock.start({ model: "m" });
  await clock.settle();
  assert.equal(sockets.length, 2);
  socket.entry(2, "b");
  assert.equal(stream.text, "ab");
  const delays = [];
  stream.onretry = ({ delay }) => delays.push(delay);
  socket.lose(1012);
  await clock.settle();
  assert.deepEqual(delays, [4000], "as it wished");
  await sockets[1].open();
  await clock.advance(4_000);
  assert.deepEqual(sockets[1].said.map(({ type, after }) => [type, after]).at(-1), ["read", cursor(2)]);
  other.close();
});

test("a socket that follows as much as it may is joined by another", async () => {
  const { clock, sockets, socket } = await started();
  socket.tell({ type: "err", rid: socket.rid, code: "too_many_rids", message: "open another", retryable: false });
  await clock.settle();
  assert.equal(sockets.length, 2);
});

test("a handshake that does not end, or fails by an error alone, is given up", async () => {
  const { clock, sockets, penstock } = client();
  const stream = penstock.start({ model: "m" });
  const reasons = [];
  stream.onretry = ({ reason }) => reasons.push(reason);
  await clock.advance(11_000);
  assert.equal(sockets.length, 2);
  sockets[1].onerror();
  await clock.advance(2_000);
  assert.equal(sockets.length, 3);
  assert.deepEqual(reasons, ["network", "network"]);
});

test("a socket whose pings are not answered is dead; one whose tab slept is not", async () => {
  const { clock, sockets, socket } = await started();
  socket.tell({ type: "open", rid: socket.rid, stream: ID, status: "open", tail: 0, c: cursor(0) });
  clock.time += 120_000; // no timer came in two minutes
  await clock.advance(1_000);
  assert.equal(sockets.length, 1);
  socket.tell({ type: "pong" });
  await clock.advance(40_000);
  assert.equal(socket.readyState, 1);
  await clock.advance(10_000);
  assert.equal(socket.readyState, 3);
});

test("what is no message of a gateway ends the socket, and another one goes on", async () => {
  const { clock, sockets, socket, stream } = await started();
  socket.tell({ type: "open", rid: socket.rid, stream: ID, status: "open", tail: 0, c: cursor(0) });
  socket.onmessage({ data: "<h1>Bad gateway</h1>" });
  assert.equal(socket.readyState, 3);
  await clock.advance(1_000);
  assert.equal(sockets.length, 2);
  assert.equal(stream.losses, 1);
});
