// @ts-check
// One answer followed to its end by the JavaScript client, with what only a page knows: a key that a person
// is asked for, a tab that nobody looks at, a person who cuts the connection or does not want to wait.
//
// The client asks once, comes back after every loss and reads behind the last entry. A stream of its is
// left and another one made, from the same place, where the page wants a pause.
//
// Nothing else of the page enters here: what happens is told by the handlers.

import { PenstockError } from "./client/penstock.js";
import { Refusal } from "./api.js";

/** A tab that nobody looks at lets go of its stream: where no WebSocket passes, tabs read in turns. */
const UNSEEN = 60_000;
/** Seconds between two heartbeats, with some more: silence beyond twice that, and nobody is there. */
const HEARTBEAT = 15_500;
const MAX_REREADS = 2;
const REASONS = new Set(["network", "ended", "silent", "proxy"]);

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
 * @property {(info: {from: number}) => void} opened
 * @property {(entry: any, cursor: string, caught: boolean) => void} entry  each once, in order;
 *   `caught`: it had been there before this connection was
 * @property {() => void} heartbeat
 * @property {() => void} restarted                    all that was read is void: it comes again
 * @property {(why: string) => void} lost              a connection that was open is gone
 * @property {(end: import("./answer.js").End) => void} failed  the end, when it is not an entry
 * @property {(state: State) => void} state
 */

export class Follower {
  /** @type {State} */
  state = { phase: "asking", attempt: 0, until: 0, reason: "", stopping: false };
  /** What the client reads for us now. @type {import("./client/penstock.js").Stream | null} */
  #reading = null;
  /** @type {(() => void) | null} */
  #wake = null;
  #over = false;
  #cutFor = 0;
  #unseen = false;
  #heard = 0;
  #rereads = 0;
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
      while (!this.#over) {
        if (this.#unseen) {
          this.#tell({ phase: "unseen", until: 0 });
          await this.#sleep(Infinity);
        } else if (this.#cutFor) {
          const pause = this.#cutFor;
          this.#cutFor = 0;
          this.#tell({ phase: "cut", until: Date.now() + pause, attempt: 1 });
          await this.#sleep(pause);
        } else await this.#read();
      }
    } finally {
      this.#listeners.abort();
      clearTimeout(this.#leaving);
      this.#tell({ phase: "over", until: 0 });
    }
  }

  /** Stop reading; the answer goes on without us. */
  close() {
    this.#over = true;
    this.#lose();
  }

  /** Lose the connection on purpose, and come back after `pause` milliseconds. @param {number} pause */
  cut(pause) {
    this.#cutFor = pause;
    this.#lose("cut");
  }

  retryNow() {
    this.#wake?.();
    this.#reading?.retryNow();
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
    this.#wake?.();
    // Between two streams of the client there is none to stop; the next one comes at once.
    while (!this.#over && !this.#reading) await new Promise((go) => setTimeout(go, 50));
    await this.#reading?.stop().catch((error) => {
      if (!(error instanceof PenstockError && error.status === 404)) this.#tell({ stopping: false });
    });
  }

  // --- one stream of the client after another -----------------------------------------------------

  async #read() {
    const { stream, cursor, key } = this;
    const creating = !stream;
    if (creating) this.#tell({ phase: "asking" });
    const { client } = this.api;
    const reading = creating
      ? client.start(JSON.parse(this.body).request, { idempotencyKey: key })
      : client.read(cursor || stream);
    this.#reading = reading;
    this.#heard = Date.now();
    reading.onopen = (id) => {
      this.#heard = Date.now();
      this.#name(id);
      this.#tell({ phase: "reading", until: 0, reason: "" });
      this.on.opened({ from: this.n });
    };
    reading.onheartbeat = () => {
      this.#heard = Date.now();
      this.on.heartbeat();
    };
    reading.onmessage = (entry) => this.#entry(entry, reading);
    reading.onretry = ({ attempt, delay, reason }) => {
      const known = REASONS.has(reason) ? reason : reading.id && reason === "missing" ? "ended" : "busy";
      if (this.state.phase === "reading") this.on.lost(known);
      this.#tell({ phase: "waiting", attempt, until: Date.now() + delay, reason: known });
    };
    await new Promise((closed) => (reading.onclose = closed));
    if (this.#reading === reading) this.#reading = null;
    else return; // it was left
    if (this.#over) return;
    if (reading.error) await this.#refused(reading.error, creating && !this.stream);
    // The log ends where we are, and we did not have its end: our copy is not to be trusted.
    else if ((this.#rereads += 1) > MAX_REREADS) this.#lost();
    else this.#startOver();
  }

  /** @param {any} entry @param {import("./client/penstock.js").Stream} reading */
  #entry(entry, reading) {
    if (this.#reading !== reading) return;
    this.#heard = Date.now();
    if (entry.type === "restarted") {
      this.#startOver();
      return;
    }
    if (this.state.attempt) this.#tell({ attempt: 0 });
    this.n = entry.n;
    this.cursor = reading.cursor;
    this.#over = entry.type === "end";
    this.on.entry(entry, this.cursor, entry.n <= reading.tail);
  }

  /** @param {PenstockError} error @param {boolean} creating */
  async #refused(error, creating) {
    const { status, code, message, retryable, retryAfter } = error;
    if (status === 401) {
      this.#tell({ phase: "key" });
      const refusal = new Refusal(status, { error: { code, message, fault: error.fault } }, undefined);
      if (await this.api.askForKey(refusal)) return;
    }
    if (code === "log_lost" && !status) return this.#lost();
    const gone = !creating && (status === 404 || status === 410);
    const stopped = code === "cancelled" && !status;
    this.#finish({
      status: stopped ? "cancelled" : gone ? "gone" : creating ? "refused" : "unreadable",
      code,
      message: stopped ? "" : message,
      fault: error.fault || (stopped ? "client" : "gateway"),
      retryable: gone || retryable || status === 429 || status >= 500,
      ...(retryAfter ? { retry_after: retryAfter } : {}),
      ...(status ? { http_status: status } : {}),
    });
  }

  #lost() {
    this.#finish({ status: "unreadable", code: "log_lost", fault: "gateway", message: "", retryable: true });
  }

  #startOver() {
    this.n = 0;
    this.cursor = "";
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
    this.#lose();
    this.on.failed({ ...end, at: Date.now() });
  }

  // --- waiting ------------------------------------------------------------------------------------

  /** Leave the stream that is read; whoever follows decides what comes next. @param {string} [why] */
  #lose(why) {
    if (why && this.state.phase === "reading") this.on.lost(why);
    const reading = this.#reading;
    this.#reading = null;
    reading?.close();
    this.#wake?.();
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
    if (this.#wake || this.state.phase === "waiting") this.retryNow();
    else if (Date.now() - this.#heard > 2 * HEARTBEAT) this.#lose("silent");
  }

  #leave() {
    if (this.#over || !this.stream) return;
    this.#unseen = true;
    this.#lose();
  }

  /** @param {Partial<State>} change */
  #tell(change) {
    this.state = { ...this.state, ...change };
    this.on.state(this.state);
  }
}
