// @ts-check
// One answer followed to its end, whatever happens to the connection.
//
// It is asked for once: the POST carries an Idempotency-Key, so a request that is repeated because
// its response was lost finds the answer that is already there. From the first byte on it is a log
// that is read from a cursor: after any loss the reader goes on behind the last entry it has. It
// gives up only when the gateway says that there is nothing left to wait for.
//
// Nothing of the page enters here: what happens is told by the handlers.

import { refusalOf, Refusal } from "./api.js";
import { SseDecoder } from "./sse.js";

/** Total silence that counts as a lost connection; heartbeats come every 15 s. */
export const SILENCE = 45_000;
const FIRST_DELAY = 1_000;
const MAX_DELAY = 30_000;
/** A tab that nobody looks at lets go of its connection: a browser has six for all its tabs. */
const UNSEEN = 60_000;

/**
 * @typedef {object} State
 * @property {"asking" | "reading" | "waiting" | "cut" | "unseen" | "key" | "over"} phase
 * @property {number} attempt   0 until a connection is lost
 * @property {number} until     when the next attempt is made, milliseconds since 1970
 * @property {string} reason    why: `network`, `ended`, `silent`, `busy`, `proxy`
 * @property {boolean} stopping
 */

/**
 * @typedef {object} Handlers
 * @property {(stream: string) => void} named          the stream's id is known
 * @property {(info: {from: number, tail: number, status: string}) => void} opened
 * @property {(entry: any, cursor: string, caught: boolean) => void} entry  each once, in order;
 *   `caught`: it had been there before this connection was
 * @property {() => void} heartbeat
 * @property {() => void} restarted                    all that was read is void: it comes again
 * @property {(why: string) => void} lost              a connection that was open is gone
 * @property {(end: import("./answer.js").End) => void} failed  the end, when it is not an entry
 * @property {(state: State) => void} state
 */

/** Full jitter: anything up to the doubled delay. @param {number} attempt @param {() => number} random */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** Math.min(attempt - 1, 10));
}

class Lost extends Error {
  /** @param {string} reason @param {number} [after] seconds to wait at least */
  constructor(reason, after = 0) {
    super(reason);
    this.reason = reason;
    this.after = after;
  }
}

class ReadAgain extends Error {}

export class Follower {
  /** @type {State} */
  state = { phase: "asking", attempt: 0, until: 0, reason: "", stopping: false };
  #abort = new AbortController();
  /** @type {(() => void) | null} */
  #wake = null;
  #over = false;
  #ended = false;
  #closed = false;
  #unsure = false;
  #cutFor = 0;
  #unseen = false;
  #heard = 0;
  #silence = SILENCE;
  #heartbeat = 15_000;
  #rereads = 0;
  #most = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watch;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #leaving;
  #listeners = new AbortController();

  /**
   * @param {import("./api.js").Api} api
   * @param {{body?: string, key?: string, stream?: string, cursor?: string, n?: number}} what
   *   `body` and `key` to ask, or `stream` to read, from `cursor` behind entry `n`
   * @param {Handlers} on
   */
  constructor(api, what, on) {
    this.api = api;
    this.body = what.body ?? "";
    this.key = what.key ?? "";
    this.stream = what.stream ?? "";
    this.cursor = what.cursor ?? "";
    this.n = what.n ?? 0;
    this.on = on;
  }

  /** Follow to the end. Resolves when it is over, for whatever reason. */
  async run() {
    this.#listen();
    try {
      while (!this.#over) await this.#attempt();
    } finally {
      this.#listeners.abort();
      clearTimeout(this.#watch);
      clearTimeout(this.#leaving);
      this.#tell({ phase: "over", until: 0 });
    }
  }

  /** Stop reading; the answer goes on without us. */
  close() {
    this.#closed = true;
    this.#over = true;
    this.#abort.abort();
    this.#wake?.();
  }

  /** Lose the connection on purpose, and come back after `pause` milliseconds. @param {number} pause */
  cut(pause) {
    this.#cutFor = pause;
    this.#abort.abort();
  }

  retryNow() {
    this.#wake?.();
  }

  /** Ask the gateway to stop the model. The end comes as an entry, as every end does. */
  async stop() {
    if (this.#over) return;
    if (this.state.stopping) {
      // Asked a second time: the gateway cannot be told, and the person does not want to wait for it.
      this.#finish({ status: "cancelled", code: "not_confirmed", fault: "client", message: "" });
      return;
    }
    this.#tell({ stopping: true });
    for (let attempt = 1; !this.#over; attempt += 1) {
      try {
        const path = this.stream ? `v1/streams/${this.stream}/cancel` : "v1/streams/cancel";
        /** @type {Record<string, string>} */
        const headers = this.stream ? {} : { "Idempotency-Key": this.key };
        const response = await this.api.fetch(path, { method: "POST", headers });
        if (response.ok) {
          this.retryNow();
          return;
        }
        const refusal = await refusalOf(response);
        if (refusal.status === 404 && refusal.code === "stream_not_found") {
          // Nothing was started under this key, unless the request is on its way: then its answer is
          // awaited, and stopped by its id.
          if (!this.stream && this.state.phase !== "asking") {
            this.#finish({ status: "cancelled", code: "cancelled", fault: "client", message: "" });
            return;
          }
          if (this.stream) return;
        } else if (refusal.status < 500 && refusal.status !== 429) {
          this.#tell({ stopping: false });
          return;
        }
      } catch {
        // The gateway cannot be reached: tried again below.
      }
      await new Promise((go) => setTimeout(go, Math.min(5_000, 250 * attempt)));
    }
  }

  // --- one connection after another -------------------------------------------------------------

  async #attempt() {
    if (this.#unseen) {
      this.#tell({ phase: "unseen", until: 0 });
      await this.#sleep(Infinity);
      if (this.#over) return;
    }
    this.#abort = new AbortController();
    try {
      await this.#connect();
    } catch (error) {
      if (this.#over) return;
      clearTimeout(this.#watch);
      if (error instanceof ReadAgain) {
        this.#startOver();
        return;
      }
      if (error instanceof Refusal) {
        this.#finish(refused(error, this.stream ? "unreadable" : "refused"));
        return;
      }
      const lost = error instanceof Lost ? error : new Lost("network");
      if (this.state.phase === "reading") this.on.lost(this.#cutFor ? "cut" : lost.reason);
      if (!this.stream && lost.reason !== "key") this.#unsure = true;
      await this.#pause(lost);
    }
  }

  async #connect() {
    const creating = !this.stream;
    this.#hear();
    if (creating) this.#tell({ phase: "asking" });
    /** @type {Record<string, string>} */
    const headers = creating
      ? { "Content-Type": "application/json", "Idempotency-Key": this.key, Accept: "text/event-stream" }
      : { Accept: "text/event-stream", ...(this.cursor ? { "Last-Event-ID": this.cursor } : {}) };
    const signal = this.#abort.signal;
    const response = creating
      ? await this.api.fetch("v1/streams", { method: "POST", body: this.body, headers, signal })
      : await this.api.fetch(`v1/streams/${this.stream}/events`, { headers, signal });
    this.#hear();
    if (response.status === 204) {
      // The log ends at our cursor, so we must have had its end; if not, our copy is not to be trusted.
      if (this.#ended) this.#over = true;
      else throw new ReadAgain();
    } else if (!response.ok) await this.#refused(await refusalOf(response), creating);
    else if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) throw new Lost("proxy");
    else {
      const id = response.headers.get("Stream-Id");
      if (creating && id) this.#name(id);
      await this.#read(response);
    }
  }

  /** @param {Refusal} refusal @param {boolean} creating */
  async #refused(refusal, creating) {
    const { status, code } = refusal;
    if (status === 401) {
      this.#tell({ phase: "key" });
      if (await this.api.askForKey(refusal)) throw new Lost("key", -1);
      throw refusal;
    }
    if (status === 408 || code === "idempotency_key_in_use") throw new Lost("busy", 0);
    if (!code && (status >= 500 || status === 404 || status === 429)) throw new Lost("proxy", refusal.retryAfter);
    if (status === 429 || status >= 500) {
      // Nothing was started, and the person decides; unless an earlier request may have arrived.
      if (creating && !this.#unsure) throw refusal;
      if (code === "log_damaged") throw refusal;
      throw new Lost("busy", refusal.retryAfter);
    }
    if (!creating && (status === 409 || status === 416 || code === "invalid_cursor" || code === "cursor_mismatch")) {
      throw new ReadAgain();
    }
    if (!creating && (status === 404 || status === 410)) {
      this.#finish({ ...refused(refusal, "gone"), retryable: true });
      return;
    }
    throw refusal;
  }

  /** @param {Response} response */
  async #read(response) {
    const decoder = new SseDecoder();
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    let comments = 0;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      this.#hear();
      for (const event of decoder.feed(value)) {
        this.#event(event);
        if (this.#over) {
          reader.cancel().catch(() => {});
          return;
        }
      }
      if (decoder.comments > comments) {
        comments = decoder.comments;
        this.on.heartbeat();
      }
    }
    throw new Lost("ended");
  }

  /** @param {import("./sse.js").SseEvent} event */
  #event({ type, data: text, id }) {
    const data = JSON.parse(text);
    if (type === "stream") {
      this.#name(id.split("~")[0]);
      this.tail = data.tail;
      this.#heartbeat = data.heartbeat * 1000;
      this.#silence = Math.max(SILENCE, 3 * this.#heartbeat);
      this.#tell({ phase: "reading", until: 0, reason: "" });
      this.on.opened(data);
    } else if (typeof data.n === "number") {
      if (data.n <= this.n) return;
      if (data.n > this.n + 1) throw new ReadAgain();
      this.n = data.n;
      this.cursor = id;
      if (this.n > this.#most) {
        this.#most = this.n;
        this.#rereads = 0;
      }
      if (this.state.attempt) this.#tell({ attempt: 0 });
      this.#ended = data.type === "end";
      this.#over = this.#ended;
      this.on.entry(data, id, data.n <= (this.tail ?? 0));
    } else if (type === "fail") {
      if (data.code === "log_lost") throw new ReadAgain();
      if (data.retryable) throw new Lost("busy");
      this.#finish({ ...data, status: "unreadable" });
    }
  }

  #startOver() {
    this.#rereads += 1;
    this.n = 0;
    this.cursor = "";
    if (this.#rereads > 2) {
      this.#finish({ status: "unreadable", code: "log_lost", fault: "gateway", message: "", retryable: true });
      return;
    }
    this.on.restarted();
  }

  /** @param {string} stream */
  #name(stream) {
    if (this.stream === stream) return;
    this.stream = stream;
    this.on.named(stream);
  }

  /** @param {import("./answer.js").End} end */
  #finish(end) {
    if (this.#over) return;
    this.#over = true;
    this.#abort.abort();
    this.#wake?.();
    this.on.failed({ ...end, at: Date.now() });
  }

  // --- waiting ----------------------------------------------------------------------------------

  /** @param {Lost} lost */
  async #pause(lost) {
    if (this.#unseen) return;
    if (this.#cutFor) {
      const pause = this.#cutFor;
      this.#cutFor = 0;
      this.#tell({ phase: "cut", until: Date.now() + pause, attempt: 1 });
      await this.#sleep(pause);
      return;
    }
    if (lost.after < 0) return;
    const attempt = this.state.attempt + 1;
    const delay = Math.max(backoff(attempt), (lost.after ?? 0) * 1000);
    this.#tell({ phase: "waiting", attempt, until: Date.now() + delay, reason: lost.reason });
    await this.#sleep(delay);
  }

  /** @param {number} delay */
  async #sleep(delay) {
    if (this.#over) return;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    await new Promise((/** @type {(value?: unknown) => void} */ go) => {
      this.#wake = () => go();
      if (delay !== Infinity) timer = setTimeout(go, delay);
    });
    clearTimeout(timer);
    this.#wake = null;
    this.#tell({ until: 0 });
  }

  /** A sign of life. Silence beyond the limit loses the connection. */
  #hear() {
    this.#heard = Date.now();
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#drop(), this.#silence);
  }

  #drop() {
    if (this.state.phase === "reading") this.on.lost("silent");
    this.state = { ...this.state, phase: "waiting" };
    this.#abort.abort(new Lost("silent"));
  }

  #listen() {
    const signal = this.#listeners.signal;
    addEventListener("online", () => this.#returned(), { signal });
    addEventListener("pageshow", (event) => event.persisted && this.#returned(), { signal });
    addEventListener("pagehide", () => this.#leave(), { signal });
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#leaving);
      if (document.visibilityState === "visible") this.#returned();
      else this.#leaving = setTimeout(() => this.#leave(), UNSEEN);
    }, { signal });
  }

  /** The page is seen again, or the network is back: what waits goes on, what is dead is replaced. */
  #returned() {
    this.#unseen = false;
    if (this.#wake) this.#wake();
    else if (Date.now() - this.#heard > 2 * this.#heartbeat + 1_000) this.#drop();
  }

  #leave() {
    if (this.#over || this.#closed || !this.stream) return;
    this.#unseen = true;
    this.#abort.abort();
  }

  /** @param {Partial<State>} change */
  #tell(change) {
    this.state = { ...this.state, ...change };
    this.on.state(this.state);
  }
}

/** @param {Refusal} refusal @param {string} status @returns {import("./answer.js").End} */
function refused(refusal, status) {
  return {
    status,
    code: refusal.code,
    message: refusal.message,
    fault: refusal.fault || "gateway",
    retryable: refusal.retryable || refusal.status === 429 || refusal.status >= 500,
    retry_after: refusal.retryAfter,
    http_status: refusal.status,
  };
}
