// @ts-check
// What arrived when, for the strip: chunks, heartbeats, cuts and resumes, on the page's clock.
// Bounded: of a very long answer, marks that stand close together are merged.

const MAX_MARKS = 4_000;

/**
 * @typedef {object} Mark
 * @property {number} at      milliseconds since the beginning
 * @property {"text" | "reasoning" | "refusal" | "tool"} kind
 * @property {number} size    characters
 * @property {number} count   chunks that are merged in it
 * @property {boolean} caught it had waited in the log while the connection was gone
 */

export class Timeline {
  #began = performance.now();
  /** @type {Mark[]} */
  marks = [];
  /** @type {number[]} */
  heartbeats = [];
  /**
   * Where the connection was lost, why, when it was back, and how many chunks had waited meanwhile.
   * @type {{at: number, why: string, back: number, caught: number}[]}
   */
  gaps = [];
  chunks = 0;
  caught = 0;
  longest = 0;
  /** 0 while it goes on. */
  ended = 0;
  #last = 0;

  get now() {
    return performance.now() - this.#began;
  }

  /** How far the time axis reaches. */
  get length() {
    return this.ended || this.now;
  }

  get cuts() {
    return this.gaps.length;
  }

  /** @param {string} kind @param {number} size @param {boolean} caught */
  chunk(kind, size, caught) {
    const at = this.now;
    this.chunks += 1;
    const gap = this.gaps.at(-1);
    if (caught) {
      this.caught += 1;
      if (gap) gap.caught += 1;
    } else if (this.#last) this.longest = Math.max(this.longest, at - this.#last);
    this.#last = at;
    this.marks.push({ at, kind: /** @type {any} */ (kind), size, count: 1, caught });
    if (this.marks.length > MAX_MARKS) this.#merge();
  }

  heartbeat() {
    this.heartbeats.push(this.now);
    if (this.heartbeats.length > MAX_MARKS) this.heartbeats = this.heartbeats.filter((_, index) => index % 2);
  }

  /** @param {string} why */
  lost(why) {
    this.gaps.push({ at: this.now, why, back: 0, caught: 0 });
    if (this.gaps.length > MAX_MARKS) this.gaps.shift();
  }

  /** @param {boolean} again */
  opened(again) {
    const gap = this.gaps.at(-1);
    if (again && gap && !gap.back) gap.back = this.now;
    this.#last = 0;
  }

  /** It is read from the start: what is drawn is what comes now. */
  restarted() {
    this.marks = [];
    this.chunks = this.caught = 0;
  }

  end() {
    this.ended ||= this.now;
  }

  /** Join neighbours of one kind, two and two. */
  #merge() {
    /** @type {Mark[]} */
    const kept = [];
    for (let index = 0; index < this.marks.length; index += 2) {
      const [one, next] = this.marks.slice(index, index + 2);
      if (next && next.kind === one.kind && next.caught === one.caught) {
        kept.push({ ...one, size: one.size + next.size, count: one.count + next.count });
      } else kept.push(one, ...(next ? [next] : []));
    }
    this.marks = kept;
  }
}
