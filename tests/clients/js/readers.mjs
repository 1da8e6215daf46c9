// Readers of event streams, each set up as its documentation says, behind one face:
//
//     const { texts, how, verified } = await readers[name](job);
//
// job: { url, format: "text" | "json", post: body or undefined, key: idempotency key or undefined }.
// texts: the text of each event that brought some, in order. how: what ended the reading ("done", "204", …).
// verified: whether the reader looked at order and digests by itself, and all was well.
// Meanwhile both stand in job.log: what has come so far, and what happened last.
// Runs in Node.js and in browsers; a reader that is not made for the one is never asked for there.

const TEXT = { text: "message", json: "delta" };

class Log {
  constructor(job) {
    this.format = job.format;
    this.event = TEXT[job.format];
    this.texts = [];
    this.note("asked");
    job.log = this;
  }

  note(what) {
    this.last = what;
    this.moved = performance.now();
  }

  add(text) {
    this.texts.push(text);
    this.moved = performance.now();
  }

  take(data) {
    if (this.format === "text") this.add(data);
    else {
      const delta = JSON.parse(data);
      if (delta.type === "text") this.add(delta.delta);
    }
  }

  ended(how) {
    return { texts: this.texts, how };
  }
}

// A bare EventSource: it knows no end, and stops when the server says 204.
function bare(source, job) {
  const log = new Log(job);
  let last = "";
  source.addEventListener("open", () => log.note("opened"));
  return new Promise((resolve) => {
    source.addEventListener(log.event, (event) => log.take(event.data));
    for (const end of ["done", "fail"]) source.addEventListener(end, () => (last = end));
    source.addEventListener("error", () => {
      log.note(`error in state ${source.readyState}`);
      if (source.readyState === 2) resolve(log.ended(`closed ${last}`));
    });
  });
}

// These know nothing of 204, or stumble over it: they are closed when the last event is there.
function untilDone(source, job, failed = () => {}) {
  const log = new Log(job);
  return new Promise((resolve) => {
    source.addEventListener("open", () => log.note("opened"));
    source.addEventListener(log.event, (event) => log.take(event.data));
    source.addEventListener("error", (event) => {
      log.note(`error ${event.responseCode ?? event.xhrStatus ?? event.status ?? ""} in state ${source.readyState}`);
      failed(event);
    });
    for (const end of ["done", "fail"]) {
      source.addEventListener(end, () => {
        source.close();
        resolve(log.ended(`closed ${end}`));
      });
    }
  });
}

function headersOf(job) {
  return {
    ...(job.post && { "Content-Type": "application/json" }),
    ...(job.key && { "Idempotency-Key": job.key }),
  };
}

class Ended extends Error {}

// In Node.js as it is built, in a browser as the gateway ships it.
function penstock(job) {
  if (globalThis.process) return import("../../../clients/js/dist/index.js");
  return import(`${new URL(job.url).origin}/0/client/penstock.js`);
}

async function ours(job, transport) {
  const { Penstock } = await penstock(job);
  const [, run, path] = /^(.*?\/\d+\/)(.*)$/.exec(job.url);
  const client = new Penstock({ url: run, transport, backoff: { first: 50 } });
  const stream = job.post
    ? client.start(JSON.parse(job.post).request, { idempotencyKey: job.key })
    : path.startsWith("stream?")
      ? client.ask(new URL(job.url).searchParams.get("content"))
      : client.read(path.split("/")[2]);
  const log = new Log(job);
  stream.onopen = () => log.note("opened");
  stream.onretry = ({ attempt, reason }) => log.note(`lost ${attempt} times: ${reason}`);
  for await (const entry of stream) if (entry.type === "text") log.add(entry.delta);
  client.close();
  return { ...log.ended(stream.end.status), verified: stream.verified };
}

export const readers = {
  async EventSource(job) {
    return bare(new globalThis.EventSource(job.url), job);
  },

  async eventsource(job) {
    const { EventSource } = await import("eventsource");
    return bare(new EventSource(job.url), job);
  },

  async "event-source-polyfill"(job) {
    await import("event-source-polyfill").then((module) => {
      globalThis.EventSourcePolyfill ??= module.default?.EventSourcePolyfill ?? module.EventSourcePolyfill;
    });
    return untilDone(new globalThis.EventSourcePolyfill(job.url), job);
  },

  async "fetch-event-source"(job) {
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    const log = new Log(job);
    let how = "clean end";
    let last = "";
    await fetchEventSource(job.url, {
      method: job.post ? "POST" : "GET",
      body: job.post,
      headers: headersOf(job),
      openWhenHidden: true,
      async onopen(response) {
        log.note(`opened ${response.status}`);
        if (response.status === 204) throw new Ended();
        if (!response.ok) throw new Ended(`${response.status}`);
      },
      onmessage(message) {
        if ((message.event || "message") === log.event) log.take(message.data);
        if (message.event === "done" || message.event === "fail") last = message.event;
      },
      onclose() {
        if (!last) throw new Error("cut"); // it takes any end for the end
      },
      onerror(error) {
        log.note(`${error}`);
        if (error instanceof Ended) throw error;
      },
    }).catch((error) => {
      if (!(error instanceof Ended)) throw error;
      how = error.message || "204";
    });
    return log.ended(how);
  },

  async "sse.js"(job) {
    const { SSE } = await import("sse.js");
    const source = new SSE(job.url, { payload: job.post, headers: headersOf(job), autoReconnect: true });
    return untilDone(source, job);
  },

  // Our own client: by fetch, by XMLHttpRequest as in React Native, and on a WebSocket.
  async penstock(job) {
    return ours(job, "fetch");
  },

  async "penstock-xhr"(job) {
    return ours(job, "xhr");
  },

  async "penstock-websocket"(job) {
    return ours(job, "websocket");
  },

  // A reader that knows nothing of resuming, on our fetch.
  async "penstock-durable-fetch"(job) {
    const { durableFetch, SseDecoder } = await penstock(job);
    const fetch = durableFetch({ backoff: { first: 50 } });
    const response = await fetch(job.url, { method: job.post ? "POST" : "GET", body: job.post, headers: headersOf(job) });
    const log = new Log(job);
    const decoder = new SseDecoder();
    let last = "";
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      for (const { event, data } of decoder.feed(value)) {
        if ((event || "message") === log.event) log.take(data);
        last = event;
      }
    }
    return log.ended(last === "done" ? "clean end" : `after ${last}`);
  },

  // Comes back by itself after a cut in the body; where no answer began (status 0) it must be told to.
  async "react-native-sse"(job) {
    const { default: module } = await import("react-native-sse");
    const EventSource = module.default ?? module; // CommonJS in Node.js, a module where there are bundlers
    const source = new EventSource(job.url, {
      method: job.post ? "POST" : "GET",
      body: job.post,
      headers: headersOf(job),
      timeoutBeforeConnection: 0,
    });
    return untilDone(source, job, (event) => {
      if (event.xhrStatus === 0) setTimeout(() => source.open(), 1000);
    });
  },
};

// Run jobs, so many at a time; return what was not as it should be: each job's result has `texts` only
// when they differ from what was expected. What has not moved for `patience` milliseconds is stuck,
// or has not ended in three times that.
export async function runAll(name, jobs, expected, { lanes = 100, patience = 40_000 } = {}) {
  const results = [];
  const queue = [...jobs];
  const whole = { text: JSON.stringify(expected.text), json: JSON.stringify(expected.json) };
  async function lane() {
    for (let job; (job = queue.shift()); ) {
      let timer;
      const begun = performance.now();
      const soFar = (how) => ({ texts: job.log?.texts ?? [], how: `${how}; last: ${job.log?.last ?? "not asked"}` });
      const late = new Promise((resolve) => {
        const still = (since, most) => performance.now() - since > most;
        const look = () => still(job.log?.moved ?? begun, patience) || still(begun, 3 * patience);
        timer = setInterval(() => look() && resolve(soFar("stuck")), 1000);
      });
      const failed = (error) => soFar(error?.stack ?? error);
      const { texts, how, verified = false } = await Promise.race([readers[name](job).catch(failed), late]);
      clearInterval(timer);
      const exact = JSON.stringify(texts) === whole[job.format];
      results.push({ run: job.run, how, verified, texts: exact ? null : texts });
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane));
  return results;
}
