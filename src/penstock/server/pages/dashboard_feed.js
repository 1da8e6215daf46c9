// @ts-check
// The feed: one connection that is read for as long as the page is open, and taken up again where it
// was when it is lost. Emits `history`, `frame`, `state`.

import { refusalOf } from "./api.js";
import { SseDecoder } from "./client/penstock.js";

/** A frame comes each second; so long without any counts as a lost connection. */
const SILENCE = 8_000;
const FIRST_DELAY = 1_000;
const MAX_DELAY = 30_000;

/**
 * @typedef {object} Point
 * @property {number} t @property {number} open @property {number} readers @property {number} lag
 * @property {number} started @property {number} ended @property {number} failed @property {number} tokens
 * @property {number} cancelled @property {number} retries @property {number} fallbacks @property {number} continuations
 * @property {number | null} first50 @property {number | null} first95
 * @property {number | null} gap50 @property {number | null} gap99
 */

/**
 * @typedef {object} Row
 * @property {string} id @property {string} principal @property {string} model @property {string} route
 * @property {string} target @property {number} attempts @property {string} doing @property {number} entries
 * @property {number} characters @property {number} age @property {number} silent @property {number} readers
 * @property {number} lag
 */

/** @typedef {{phase: "connecting" | "live" | "lost" | "refused" | "off", until: number}} FeedState */

export class Feed extends EventTarget {
  /** @type {FeedState} */
  state = { phase: "connecting", until: 0 };
  #cursor = "";
  #abort = new AbortController();
  /** @type {(() => void) | null} */
  #wake = null;
  #attempt = 0;
  #asked = "";
  #hurry = false;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
  }

  /** Read for ever. */
  async run() {
    for (;;) {
      let pause = 0;
      try {
        await this.#read();
      } catch {
        // The connection was lost, or fell silent: it is looked for again.
      }
      if (this.state.phase === "refused" || this.state.phase === "off") {
        await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
      } else if (this.#hurry) {
        this.#hurry = false;
        continue;
      } else {
        this.#attempt += 1;
        pause = 300 + Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** Math.min(this.#attempt - 1, 10));
        this.#tell({ phase: "lost", until: Date.now() + pause });
        await new Promise((resolve) => {
          this.#wake = () => resolve(undefined);
          setTimeout(resolve, pause);
        });
      }
      this.#wake = null;
      this.#tell({ phase: "connecting", until: 0 });
    }
  }

  /** Try now: there is another key, or the person asks for it. */
  again() {
    this.#attempt = 0;
    if (this.#wake) this.#wake();
    else this.#abort.abort();
  }

  /** Which streams shall have rows from now on; what is under way is gone on with. @param {string} query */
  ask(query) {
    if (query === this.#asked) return;
    this.#asked = query;
    if (this.state.phase !== "live" && this.state.phase !== "connecting") return;
    this.#hurry = true;
    this.#abort.abort();
  }

  async #read() {
    this.#abort = new AbortController();
    let watch = 0;
    const heard = () => {
      clearTimeout(watch);
      watch = window.setTimeout(() => this.#abort.abort(), SILENCE);
    };
    heard();
    try {
      /** @type {Record<string, string>} */
      const headers = { Accept: "text/event-stream" };
      if (this.#cursor) headers["Last-Event-ID"] = this.#cursor;
      const response = await this.api.fetch(`v1/admin/activity${this.#asked ? `?${this.#asked}` : ""}`, { headers, signal: this.#abort.signal });
      if (!response.ok || !response.body) {
        const refusal = await refusalOf(response);
        if (refusal.status === 401) {
          clearTimeout(watch);
          if (!(await this.api.askForKey(refusal))) this.#tell({ phase: "refused", until: 0 });
          else this.#attempt = 0;
        } else if (refusal.status === 403) this.#tell({ phase: "refused", until: 0 });
        else if (refusal.status === 404) this.#tell({ phase: "off", until: 0 });
        return;
      }
      const decoder = new SseDecoder();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        heard();
        for (const event of decoder.feed(value)) this.#take(event);
      }
    } finally {
      clearTimeout(watch);
    }
  }

  /** @param {import("./client/penstock.js").SseEvent} event */
  #take(event) {
    if (event.id) this.#cursor = event.id;
    this.#attempt = 0;
    if (this.state.phase !== "live") this.#tell({ phase: "live", until: 0 });
    if (event.event === "history" || event.event === "frame") {
      this.dispatchEvent(new CustomEvent(event.event, { detail: JSON.parse(event.data) }));
    }
  }

  /** @param {FeedState} state */
  #tell(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
