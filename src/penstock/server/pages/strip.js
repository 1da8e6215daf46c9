// @ts-check
// The strip: an answer's chunks on a time axis, drawn on a canvas as they arrive.
// Height is size, colour is kind. A lost connection is a gap; what had waited in the log meanwhile
// comes in one burst, and is drawn hollow. What it shows is also said in words.

import { h } from "./dom.js";
import { seconds, t } from "./i18n.js";

const DRAW_EVERY = 80;
const SHORTEST = 3_000;
const STEPS = [50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000];

export class Strip {
  #drawn = 0;
  #pending = 0;
  #observer = new ResizeObserver(() => this.#soon());

  /** @param {import("./timeline.js").Timeline} timeline */
  constructor(timeline) {
    this.timeline = timeline;
    this.canvas = h("canvas", { class: "strip", role: "img", "aria-label": this.words() });
    this.#observer.observe(this.canvas);
  }

  /** Something changed. */
  update() {
    const wait = DRAW_EVERY - (performance.now() - this.#drawn);
    if (wait <= 0 || this.timeline.ended) this.#soon();
    else if (!this.#pending) this.#pending = window.setTimeout(() => this.#soon(), wait);
  }

  /** What the strip shows, in words. */
  words() {
    const { timeline } = this;
    const parts = [t("strip_chunks", { count: timeline.chunks, seconds: seconds(timeline.length) })];
    if (timeline.longest) parts.push(t("strip_longest", { seconds: seconds(timeline.longest) }));
    if (timeline.cuts) parts.push(t("strip_cuts", { count: timeline.cuts }));
    if (timeline.caught) parts.push(t("strip_caught", { count: timeline.caught }));
    return parts.join(" ");
  }

  close() {
    this.#observer.disconnect();
    clearTimeout(this.#pending);
  }

  #soon() {
    clearTimeout(this.#pending);
    this.#pending = 0;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawn = performance.now();
    const { canvas, timeline } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    canvas.setAttribute("aria-label", this.words());
    const scale = Math.min(devicePixelRatio || 1, 3);
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(`--strip-${name}`);
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const length = timeline.ended ? Math.max(300, timeline.length) : Math.max(SHORTEST, timeline.length * 1.04);
    const x = (/** @type {number} */ at) => (at / length) * (width - 3);
    const floor = height - 15;

    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "alphabetic";
    const step = STEPS.find((one) => length / one <= width / 56) ?? /** @type {number} */ (STEPS.at(-1));
    for (let at = 0; at <= length; at += step) {
      pen.fillStyle = colour("line");
      pen.fillRect(Math.round(x(at)), floor, 1, 4);
      pen.fillStyle = colour("words");
      const words = at < 60_000 || at % 60_000 ? `${at / 1000} s` : `${at / 60_000} min`;
      if (x(at) + 26 < width) pen.fillText(words, Math.round(x(at)) + 4, height - 2);
    }
    pen.fillStyle = colour("line");
    pen.fillRect(0, floor, width, 1);

    for (const gap of timeline.gaps) {
      const from = x(gap.at);
      const to = x(gap.back || timeline.length);
      pen.fillStyle = colour("gap");
      pen.fillRect(from, 2, Math.max(1, to - from), floor - 2);
      pen.fillStyle = colour("cut");
      for (let y = 2; y < floor; y += 5) pen.fillRect(from, y, 1.5, 3);
      if (gap.back) {
        pen.fillStyle = colour("back");
        pen.fillRect(to, 2, 1.5, floor - 2);
      }
      if (gap.caught) {
        // What had waited comes at once: one block, as tall as there is room, with its number.
        pen.globalAlpha = 0.45;
        pen.fillStyle = colour("text");
        pen.fillRect(to, 8, 5, floor - 8);
        pen.globalAlpha = 1;
        pen.fillStyle = colour("words");
        const words = `+${gap.caught}`;
        const wide = pen.measureText(words).width;
        pen.fillText(words, to - from > wide + 12 ? to - wide - 5 : to + 8, 11);
      }
    }
    for (const at of timeline.heartbeats) {
      pen.fillStyle = colour("heartbeat");
      pen.fillRect(Math.round(x(at)), floor - 4, 1, 4);
    }
    const wide = timeline.marks.length < width / 3 ? 2 : 1;
    // What falls on one place adds up there: a burst is a tall bar.
    const shown = timeline.marks.filter((mark) => !mark.caught || !timeline.cuts);
    for (let index = 0; index < shown.length; ) {
      const { at, kind, caught } = shown[index];
      const place = Math.floor(x(at));
      let size = 0;
      for (; index < shown.length && shown[index].kind === kind && Math.floor(x(shown[index].at)) === place; index += 1) {
        size += shown[index].size;
      }
      const tall = 4 + (floor - 8) * Math.min(1, Math.log2(1 + size) / 7);
      pen.globalAlpha = caught ? 0.45 : 1;
      pen.fillStyle = colour(kind === "refusal" ? "text" : kind);
      pen.fillRect(place, floor - tall, wide, tall);
    }
    pen.globalAlpha = 1;
  }
}
