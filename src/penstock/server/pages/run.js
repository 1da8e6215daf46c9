// @ts-check
// An answer on its way: the follower, the value that grows, what is measured, and when it is kept.

import { addEntry, startOver } from "./answer.js";
import { Follower } from "./stream.js";
import { Timeline } from "./timeline.js";

const SAVE_EVERY = 400;
/** One more millisecond for every so many characters: a long answer is written less often. */
const CHARS_PER_MS = 200;

/**
 * @typedef {object} Figures   By this page's clock; milliseconds. Only what this page saw itself.
 * @property {number} first    from asking to the first chunk; 0 when it was not seen
 * @property {number} span     from the first chunk to the last; 0 when not all of it was seen
 * @property {number} total    from asking to the end; 0 when not all of it was seen
 */

/** Emits `update` when there is something to draw, `end` once. */
export class Run extends EventTarget {
  timeline = new Timeline();
  /** @type {Figures} */
  figures = { first: 0, span: 0, total: 0 };
  #asked = performance.now();
  #firstAt = 0;
  /** Whether all of it was seen by this page: else its figures would be false. */
  #whole;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #saving;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./library.js").AnswerNode} node   grows
   * @param {(node: import("./library.js").AnswerNode) => Promise<void>} save
   */
  constructor(api, node, save) {
    super();
    this.node = node;
    this.save = save;
    const { answer, body, key } = node;
    this.#whole = !answer.stream && Date.now() - node.at < 2_000;
    this.follower = new Follower(api, { body, key, stream: answer.stream, cursor: answer.cursor, n: answer.n }, {
      named: (stream) => {
        answer.stream = stream;
        node.body = "";
        this.#keep(0);
      },
      opened: ({ from }) => {
        this.timeline.opened(from > 0 || this.timeline.cuts > 0);
        this.#update();
      },
      entry: (entry, cursor, caught) => this.#entry(entry, cursor, caught),
      heartbeat: () => this.timeline.heartbeat(),
      restarted: () => {
        startOver(answer);
        this.#whole = false;
        this.timeline.restarted();
        this.#update();
      },
      lost: (why) => {
        this.timeline.lost(why);
        this.#keep(0);
        this.#update();
      },
      failed: (end) => {
        answer.end = end;
        this.#ended();
      },
      state: () => this.#update(),
    });
  }

  get state() {
    return this.follower.state;
  }

  async start() {
    const leave = () => this.#keep(0);
    addEventListener("pagehide", leave);
    document.addEventListener("visibilitychange", leave);
    try {
      await this.follower.run();
    } finally {
      removeEventListener("pagehide", leave);
      document.removeEventListener("visibilitychange", leave);
      this.timeline.end();
      this.#update();
    }
  }

  /** Let go: the answer goes on at the gateway, and can be followed again. */
  close() {
    this.follower.close();
    this.#keep(0);
  }

  /** @param {any} entry @param {string} cursor @param {boolean} caught */
  #entry(entry, cursor, caught) {
    const { answer } = this.node;
    const added = addEntry(answer, entry, cursor);
    if (added) {
      const now = performance.now();
      if (!this.#firstAt) {
        this.#firstAt = now;
        if (this.#whole) this.figures.first = now - this.#asked;
      }
      if (this.#whole) this.figures.span = now - this.#firstAt;
      this.timeline.chunk(added.kind, added.size, caught);
    }
    if (answer.end) this.#ended();
    else this.#keep(SAVE_EVERY + answer.chunks / 10 + lengthOf(answer) / CHARS_PER_MS);
    this.#update();
  }

  #ended() {
    if (this.#whole) this.figures.total = performance.now() - this.#asked;
    this.node.figures = this.figures;
    this.timeline.end();
    this.#keep(0);
    this.#update();
    this.dispatchEvent(new Event("end"));
  }

  #update() {
    this.dispatchEvent(new Event("update"));
  }

  /** @param {number} delay */
  #keep(delay) {
    if (delay && this.#saving) return;
    clearTimeout(this.#saving);
    this.#saving = undefined;
    if (delay) {
      this.#saving = setTimeout(() => {
        this.#saving = undefined;
        void this.save(this.node);
      }, delay);
    } else void this.save(this.node);
  }
}

/** @param {import("./answer.js").Answer} answer */
function lengthOf(answer) {
  return answer.parts.reduce((sum, part) => sum + part.text.length, 0);
}
