import assert from "node:assert/strict";
import http from "node:http";
import test from "node:test";
import { durableFetch } from "../dist/index.js";

/** A server that plays one function for each request and keeps what came. */
async function serving(plays, use) {
  const seen = [];
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    seen.push({ url: request.url, method: request.method, headers: request.headers, body });
    plays[seen.length - 1](response, request);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use(`http://127.0.0.1:${server.address().port}`, seen);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const EVENTS = { "Content-Type": "text/event-stream", "Stream-Id": "s_1", Location: "/v1/streams/s_1/events" };
const frame = (n) => `data: {"n":${n},"t":"流🌊"}\nid: c~${n}\n\n`;
const ANSWER = `${frame(1)}${frame(2)}${frame(3)}data: [DONE]\nid: c~4\n\n`;
const quick = { backoff: { first: 1, most: 2 } };

function cutAfter(bytes) {
  return (response) => {
    response.writeHead(200, EVENTS);
    response.write(bytes, () => setTimeout(() => response.destroy(), 5));
  };
}

test("a reader that knows nothing gets every byte once, wherever it was cut", async () => {
  const whole = Buffer.from(ANSWER);
  const jobs = [];
  for (let at = 0; at < whole.length; at += 1) {
    const plays = [
      cutAfter(whole.subarray(0, at)),
      (response, request) => {
        const last = Number(/~(\d)/.exec(request.headers["last-event-id"])?.[1] ?? 0);
        response.writeHead(200, EVENTS);
        response.end([frame(1), frame(2), frame(3), "data: [DONE]\nid: c~4\n\n"].slice(last).join(""));
      },
    ];
    jobs.push(
      serving(plays, async (url, seen) => {
        const response = await durableFetch(quick)(`${url}/v1/chat/completions`, { method: "POST", body: "{}" });
        assert.equal(await response.text(), ANSWER, `cut at ${at}`);
        assert.equal(seen.length, 2);
        assert.equal(seen[0].headers["idempotency-key"], seen[1].headers["idempotency-key"]);
        assert.equal(seen[1].body, "{}");
      }),
    );
  }
  await Promise.all(jobs);
});

test("an answer that is cut behind its last event is whole", async () => {
  const lasts = {
    "/stream?content=x": "event: done\ndata: {}\nid: c~2\n\n",
    "/v1/streams/s_1/events": "event: fail\ndata: {}\nid: c~2\n\n",
    "/v1/messages": "event: message_stop\ndata: {}\nid: c~2\n\n",
    "/v1/responses": "event: response.completed\ndata: {}\nid: c~2\n\n",
    "/ui/chat": "data: [DONE]\nid: c~2\n\n",
  };
  for (const [path, last] of Object.entries(lasts)) {
    await serving([cutAfter(frame(1) + last)], async (url, seen) => {
      const response = await durableFetch(quick)(url + path);
      assert.equal(await response.text(), frame(1) + last, path);
      assert.equal(seen.length, 1);
    });
  }
});

test("errors and whole answers pass as they are", async () => {
  const plays = [
    (response) => response.writeHead(401, { "Content-Type": "application/json" }).end('{"error":{}}'),
    (response) => response.writeHead(200, { "Content-Type": "application/json" }).end('{"whole":1}'),
  ];
  await serving(plays, async (url) => {
    const fetch = durableFetch(quick);
    assert.equal((await fetch(url)).status, 401);
    assert.deepEqual(await (await fetch(url)).json(), { whole: 1 });
  });
});

test("a failure that the gateway told stays one: nothing is asked again", async () => {
  const play = cutAfter(`${frame(1)}data: {"error":{"code":"upstream_reset"}}\n\n`);
  await serving([play], async (url, seen) => {
    const response = await durableFetch(quick)(url, { method: "POST", body: "{}" });
    await assert.rejects(response.text());
    assert.equal(seen.length, 1);
  });
});

test("where nothing comes back the reader is told, after so many attempts", async () => {
  const plays = [cutAfter(frame(1)), ...Array.from({ length: 3 }, () => (response) => response.destroy())];
  await serving(plays, async (url, seen) => {
    const response = await durableFetch({ backoff: { first: 1, most: 2, attempts: 3 } })(url, { method: "POST", body: "{}" });
    await assert.rejects(response.text());
    assert.equal(seen.length, 4);
  });
});

test("an abort stops the model", async () => {
  const arrived = [];
  const cancelled = new Promise((resolve) => arrived.push(resolve));
  const plays = [
    (response) => response.writeHead(200, EVENTS).write(frame(1)),
    (response, request) => (response.end("{}"), arrived[0](request)),
  ];
  await serving(plays, async (url) => {
    const abort = new AbortController();
    const headers = { Authorization: "Bearer k" };
    const response = await durableFetch(quick)(`${url}/ui/chat`, { method: "POST", body: "{}", headers, signal: abort.signal });
    const reader = response.body.getReader();
    await reader.read();
    abort.abort();
    const request = await cancelled;
    assert.equal(request.url, "/v1/streams/s_1/cancel");
    assert.equal(request.headers.authorization, "Bearer k");
    await assert.rejects(reader.read(), { name: "AbortError" });
  });
});

test("a Request is made as it says", async () => {
  const made = [];
  const fetch = async (url, init) => (made.push([url, init]), new Response("{}"));
  const request = new Request("http://gateway/v1/chat/completions", { method: "POST", body: "{}", credentials: "include", redirect: "error", headers: { "X-One": "1" } });
  await durableFetch({ fetch })(request);
  const [[url, init]] = made;
  assert.equal(url, request.url);
  const { method, body, credentials, redirect } = init;
  assert.deepEqual({ method, body, credentials, redirect }, { method: "POST", body: "{}", credentials: "include", redirect: "error" });
  assert.equal(init.headers.get("X-One"), "1");
  assert.ok(init.headers.get("Idempotency-Key"));
});

test("a gateway that asks for time is given it", async () => {
  const waited = [];
  const clock = { now: () => 0, random: () => 0, after: (delay, call) => (waited.push(delay), queueMicrotask(call), () => {}) };
  const plays = [
    cutAfter(frame(1)),
    (response) => response.writeHead(503, { "Retry-After": "7" }).end(),
    (response) => response.writeHead(200, EVENTS).end(`${frame(2)}data: [DONE]\n\n`),
  ];
  await serving(plays, async (url) => {
    const response = await durableFetch({ clock })(url, { method: "POST", body: "{}" });
    assert.equal(await response.text(), `${frame(1)}${frame(2)}data: [DONE]\n\n`);
    assert.deepEqual(waited, [0, 7_000]);
  });
});

test("an exchange that failed listens to nobody's abort any more", async () => {
  let stopped = 0;
  const fetch = async (url) => {
    stopped += url.endsWith("/cancel");
    throw new TypeError("fetch failed");
  };
  const abort = new AbortController();
  const init = { method: "POST", body: "{}", signal: abort.signal };
  await assert.rejects(durableFetch({ fetch, ...quick })("http://gateway/v1/chat/completions", init), TypeError);
  abort.abort();
  assert.equal(stopped, 0);
});
