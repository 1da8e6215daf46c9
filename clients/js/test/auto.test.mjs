import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { BLOCKED, HEAD_START, TRIAL } from "../dist/auto_transport.js";
import { Penstock } from "../dist/index.js";
import { FakeClock } from "./clock.mjs";

const ID = "s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F";
const cursor = (n) => `${ID}~${String(n).padStart(16, "0")}`;
const RECORD = '{"n":1,"type":"text","delta":"a"}';
const digest = (text) => createHash("sha256").update(text).digest("hex");
const END = JSON.stringify({ n: 2, type: "end", status: "completed", entries: 1, sha256: digest(`${RECORD}\n`), text_sha256: digest("a") });
const OPENING = `event: stream\ndata: {"tail":0,"heartbeat":15}\nid: ${cursor(0)}\n\n`;
const FIRST = `event: delta\ndata: ${RECORD}\nid: ${cursor(1)}\n\n`;
const LAST = `event: done\ndata: ${END}\nid: ${cursor(2)}\n\n`;

/** A client whose network is in the test's hands: `upgrade(socket)` says what becomes of a socket. */
function client({ upgrade = () => {}, http = () => OPENING + FIRST + LAST, ...options } = {}) {
  const network = { sockets: [], requests: [], upgrade, http };
  const clock = new FakeClock();
  class Socket {
    readyState = 0;
    said = [];
    constructor() {
      network.sockets.push(this);
      queueMicrotask(() => network.upgrade(this));
    }
    send(text) {
      const message = JSON.parse(text);
      this.said.push(message);
      if (message.type === "ping" && this.answers) this.tell({ type: "pong" });
      if (message.type === "create" || message.type === "read") this.serve?.(message);
    }
    close() {
      this.readyState = 3;
    }
    open() {
      this.readyState = 1;
      this.onopen();
    }
    tell(message) {
      queueMicrotask(() => this.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) }));
    }
    lose(code = 1006) {
      this.readyState = 3;
      this.onclose({ code });
    }
  }
  const fetch = async (url, init) => {
    network.requests.push({ url, ...init });
    const body = network.http(network.requests.length);
    if (typeof body !== "string") throw body;
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  };
  const penstock = new Penstock({ url: "http://gateway", transport: "auto", WebSocket: Socket, fetch, clock, ...options });
  const ask = () => penstock.start({ model: "m" }).result();
  return { penstock, clock, network, ask };
}

const works = (socket) => {
  socket.answers = true;
  socket.serve = ({ rid }) => {
    socket.tell({ type: "open", rid, stream: ID, status: "open", tail: 0, c: cursor(0) });
    socket.tell(`{"type":"entry","rid":"${rid}","c":"${cursor(1)}","ev":"delta","d":${RECORD}}`);
    socket.tell(`{"type":"end","rid":"${rid}","c":"${cursor(2)}","ev":"done","d":${END}}`);
  };
  socket.open();
};
const refused = (socket) => socket.lose();

test("where a socket can be had, all goes over one", async () => {
  const { ask, network } = client({ upgrade: works });
  assert.equal((await ask()).text, "a");
  assert.equal((await ask()).text, "a");
  assert.deepEqual([network.sockets.length, network.requests.length], [1, 0]);
  assert.deepEqual(network.sockets[0].said.map(({ type }) => type), ["ping", "create", "create"]);
});

test("where the upgrade is refused, all goes over HTTP, and sockets are let alone for a while", async () => {
  const { ask, network, clock } = client({ upgrade: refused });
  for (let n = 1; n <= 3; n += 1) assert.equal((await ask()).text, "a");
  assert.deepEqual([network.sockets.length, network.requests.length], [1, 3]);
  // Then one is tried beside: the answer does not wait for it.
  clock.time += BLOCKED;
  network.upgrade = () => {};
  assert.equal((await ask()).text, "a");
  assert.equal(network.sockets.length, 2);
  assert.equal(network.requests.length, 4);
  works(network.sockets[1]);
  await clock.settle();
  assert.equal((await ask()).text, "a");
  assert.equal(network.requests.length, 4);
});

test("it is let alone for longer each time", async () => {
  const { ask, network, clock } = client({ upgrade: refused });
  await ask();
  clock.time += BLOCKED;
  await ask();
  await clock.settle();
  clock.time += BLOCKED;
  await ask();
  assert.equal(network.sockets.length, 2);
  clock.time += BLOCKED;
  await ask();
  assert.equal(network.sockets.length, 3);
});

test("a handshake that nobody answers holds an answer up for a moment only", async () => {
  const { ask, network, clock } = client();
  const first = ask();
  await clock.advance(HEAD_START - 1);
  assert.equal(network.requests.length, 0);
  await clock.advance(1);
  assert.equal((await first).text, "a");
  assert.equal((await ask().then((found) => found, clock.advance(HEAD_START))).text, "a");
  await clock.advance(TRIAL);
  assert.equal(network.sockets[0].readyState, 3);
  assert.equal((await ask()).text, "a");
  assert.deepEqual([network.sockets.length, network.requests.length], [1, 3]);
});

test("on a socket through which nothing comes nothing is asked", async () => {
  const { ask, network, clock } = client({ upgrade: (socket) => socket.open() });
  const first = ask();
  await clock.advance(HEAD_START);
  assert.equal((await first).text, "a");
  await clock.advance(TRIAL);
  assert.deepEqual(network.sockets[0].said, [{ type: "ping" }]);
  assert.equal(network.sockets[0].readyState, 3);
  await ask();
  assert.equal(network.sockets.length, 1);
});

test("of a gateway that is away nothing is learnt about sockets", async () => {
  const { ask, network, clock } = client({ upgrade: refused, http: () => new TypeError("fetch failed") });
  const first = ask();
  await clock.settle();
  network.upgrade = works;
  network.http = () => OPENING + FIRST + LAST;
  await clock.advance(1_000);
  assert.equal((await first).text, "a");
  assert.deepEqual([network.sockets.length, network.requests.length], [2, 1]);
});

test("an answer whose socket is lost goes on over HTTP behind its last entry, under the same key", async () => {
  const { penstock, network, clock } = client({ upgrade: works, http: () => OPENING.replace("id: .*", cursor(1)) + LAST });
  network.upgrade = (socket) => {
    works(socket);
    socket.serve = ({ rid }) => {
      socket.tell({ type: "open", rid, stream: ID, status: "open", tail: 0, c: cursor(0) });
      socket.tell(`{"type":"entry","rid":"${rid}","c":"${cursor(1)}","ev":"delta","d":${RECORD}}`);
      network.upgrade = refused;
      queueMicrotask(() => queueMicrotask(() => socket.lose()));
    };
  };
  const stream = penstock.start({ model: "m" });
  const result = stream.result();
  await clock.advance(2_000);
  assert.equal((await result).text, "a");
  assert.ok(stream.verified);
  assert.equal(stream.losses, 1);
  assert.equal(network.requests[0].headers["Last-Event-ID"], cursor(1));
});

test("a create that a socket lost is repeated over HTTP with its key and its bytes", async () => {
  const { ask, network, clock } = client();
  network.upgrade = (socket) => {
    works(socket);
    socket.serve = () => {
      network.upgrade = refused;
      socket.lose();
    };
  };
  const result = ask();
  await clock.advance(2_000);
  await result;
  const { idempotency_key, request } = network.sockets[0].said.at(-1);
  assert.equal(network.requests[0].headers["Idempotency-Key"], idempotency_key);
  assert.deepEqual(JSON.parse(network.requests[0].body).request, request);
});

test("sockets that die young, one after the other, count as none", async () => {
  const dies = (socket) => {
    works(socket);
    socket.serve = () => socket.lose();
  };
  const { ask, network, clock } = client({ upgrade: dies });
  const result = ask();
  await clock.advance(5_000);
  assert.equal((await result).text, "a");
  assert.deepEqual([network.sockets.length, network.requests.length], [2, 1]);
  await ask();
  assert.equal(network.sockets.length, 2);
});

test("a token that a socket refuses is replaced, and is no sign of a proxy", async () => {
  const asked = [];
  const { ask, network, clock } = client({ upgrade: (socket) => (socket.open(), socket.lose(4401)), token: (refresh) => (asked.push(refresh), "t") });
  assert.equal((await ask()).text, "a");
  network.upgrade = works;
  assert.equal((await ask()).text, "a");
  await clock.settle();
  assert.deepEqual([network.sockets.length, network.requests.length], [2, 1]);
  assert.ok(asked.at(-1));
});

test("a gateway that wants a token says so in its own words", async () => {
  const wants = (socket) => {
    socket.open();
    socket.tell({ type: "err", code: "missing_api_key", message: "Say who you are.", fault: "client", retryable: false, status: 401 });
    queueMicrotask(() => queueMicrotask(() => socket.lose(4401)));
  };
  const refusing = new Response('{"error":{"code":"missing_api_key","message":"Say who you are."}}', { status: 401 });
  const { ask, penstock, clock, network } = client({ upgrade: wants });
  penstock.api.fetch = async () => refusing.clone();
  await assert.rejects(ask(), { code: "missing_api_key", status: 401 });
  assert.equal(network.sockets[0].said.at(-1).type, "ping");
  const socket = client({ upgrade: wants, transport: "websocket" });
  await assert.rejects(socket.ask(), { code: "missing_api_key", status: 401, fault: "client" });
  await clock.settle();
});

test("without WebSocket, or where the browser forbids one, there is HTTP", async () => {
  const forbidden = class {
    constructor() {
      throw new DOMException("no", "SecurityError");
    }
  };
  const { WebSocket } = globalThis;
  try {
    delete globalThis.WebSocket;
    for (const Socket of [undefined, forbidden]) {
      for (const transport of ["auto", "shared"]) {
        const { ask, network } = client({ WebSocket: Socket, transport });
        assert.equal((await ask()).text, "a");
        assert.equal(network.requests.length, 1);
      }
    }
  } finally {
    globalThis.WebSocket = WebSocket;
  }
});

test("a client that is closed lets go of a trial", async () => {
  const { penstock, ask, network, clock } = client();
  const result = ask();
  await clock.settle();
  penstock.close();
  assert.equal(network.sockets[0].readyState, 3);
  await clock.advance(HEAD_START);
  await result;
});
