// @ts-check
// The streams that go on, as rows with their strips; which of them are shown, and in which order.

import { byId, h } from "./dom.js";
import { number } from "./i18n.js";
import { paint } from "./dashboard_charts.js";
import { address, MAX_QUESTION, ORDERS, word } from "./dashboard_view.js";
import { age, named, w } from "./dashboard_words.js";
import { morph } from "./morph.js";

/** Seconds that a strip shows. */
const STRIP = 60;
/** Seconds of silence that are worth a word, and that are worth a colour. */
const QUIET = 5;
const STUCK = 20;

/** @typedef {import("./dashboard_feed.js").Row} Row */
/** @typedef {import("./dashboard_view.js").View} View */

export class Streams {
  /** @type {Map<string, RowStrip>} */
  #strips = new Map();
  /** Those within sight, which alone are drawn. @type {Set<Element>} */
  #seen = new Set();
  #sight = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) this.#seen.add(target);
      else this.#seen.delete(target);
    }
    this.#paint();
  });

  /** @param {(change: Partial<View>) => void} look */
  constructor(look) {
    const filter = byId("filter");
    filter.maxLength = MAX_QUESTION;
    let typing = 0;
    filter.addEventListener("input", () => {
      clearTimeout(typing);
      typing = window.setTimeout(() => look({ q: filter.value.trim() }), 300);
    });
    byId("sort").addEventListener("change", (/** @type {any} */ event) => look({ sort: event.target.value }));
  }

  /** What was before the page was opened. @param {Record<string, number[]>} strips */
  begin(strips) {
    this.#strips = new Map(Object.entries(strips).map(([id, characters]) => [id, new RowStrip(characters)]));
  }

  /** @param {Row[]} rows */
  take(rows) {
    const now = new Map();
    for (const row of rows) {
      const strip = this.#strips.get(row.id) ?? new RowStrip();
      this.#sight.observe(strip.canvas);
      strip.add(row);
      now.set(row.id, strip);
    }
    for (const [id, strip] of this.#strips) {
      if (now.has(id)) continue;
      this.#sight.unobserve(strip.canvas);
      this.#seen.delete(strip.canvas);
    }
    this.#strips = now;
  }

  #paint() {
    for (const strip of this.#strips.values()) if (this.#seen.has(strip.canvas)) strip.draw();
  }

  /** In the language of now. @param {View} view */
  names(view) {
    const sort = byId("sort");
    sort.replaceChildren(...ORDERS.map((order) => h("option", { value: order, text: w(/** @type {any} */ (`sort_${order}`)) })));
    sort.value = view.sort;
    const filter = byId("filter");
    if (document.activeElement !== filter) filter.value = view.q;
  }

  /** @param {any} frame @param {View} view */
  draw(frame, view) {
    const { streams: rows, matching, more, point } = frame;
    byId("streams-count").textContent = view.q ? w("of_open", { count: number(matching), open: number(point.open) }) : number(point.open);
    const place = byId("streams");
    if (!rows.length) {
      morph(place, h("p", { class: "note", text: view.q && point.open ? w("none_match") : w("no_streams") }));
      return;
    }
    morph(place, table(
      [[w("stream"), ""], [w("model"), ""], [w("target"), ""], [w("activity"), "strip-cell"], [w("age"), "number"], [w("readers"), "number"]],
      rows.map((/** @type {Row} */ one) => [one.id, [
        link(one.id),
        h("span", {}, sieve(view, "model", one.model, "clip"), sieve(view, "principal", one.principal, "note block clip")),
        h("span", {},
          one.target ? sieve(view, "target", one.target, "clip wide-clip") : h("span", { class: "clip", text: "–" }),
          h("span", { class: "note block" },
            [named("doing", one.doing), one.attempts > 1 ? w("attempt_n", { count: one.attempts }) : ""].filter(Boolean).join(" · "),
            one.silent > QUIET ? h("span", { class: one.silent > STUCK ? "trouble" : "", text: ` · ${w("silent", { seconds: age(one.silent) })}` }) : null)),
        this.#strips.get(one.id)?.canvas ?? "",
        h("span", {}, age(one.age), h("span", { class: "note block", text: w("entries_n", { count: number(one.entries) }) })),
        h("span", {}, number(one.readers), one.lag ? h("span", { class: "note block", text: w("lag", { count: number(one.lag) }) }) : null),
      ]])),
      more ? h("p", { class: "note", text: w("more_streams", { count: number(more) }) }) : null);
    this.#paint();
  }
}

/** A link to what has `value` in the field `name`. @param {View} view @param {string} name @param {string} value @param {string} kind */
export function sieve(view, name, value, kind) {
  return h("a", { class: `sieve ${kind}`, href: address({ ...view, q: word(name, value) }), title: value, text: value });
}

/** @param {string} id */
export function link(id) {
  return h("a", { href: `#/s/${id}`, class: "mono", title: id, text: `…${id.slice(-8)}` });
}

/** A table whose cells carry their column's name, for narrow screens. @param {[string, string][]} columns @param {[string, any[]][]} rows  each with its key */
export function table(columns, rows) {
  return h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, ...columns.map(([name, kind]) => h("th", { scope: "col", class: kind, text: name })))),
    h("tbody", {}, ...rows.map(([key, cells]) => h("tr", { "data-key": key }, ...cells.map((cell, index) => h("td", { class: columns[index][1], "data-name": columns[index][0] }, cell))))));
}

/** Bars of characters a second: one stream's last minute. */
class RowStrip {
  /** @type {number[]} */
  #marks = [];
  #before = -1;

  /** @param {number[]} [characters]  how many there were at each second before */
  constructor(characters = []) {
    this.canvas = h("canvas", { class: "row-strip", role: "img", "aria-label": "" });
    for (const count of characters) this.#add(count, 0);
  }

  /** @param {Row} row */
  add(row) {
    const { characters, age: old } = row;
    this.#add(characters, old <= 1.5 ? characters : 0);
    const words = w("strip_row", { count: number(this.#marks.reduce((sum, one) => sum + one, 0)) });
    this.canvas.setAttribute("aria-label", words);
    this.canvas.title = words;
  }

  /** @param {number} characters @param {number} first  of a stream that was not seen before */
  #add(characters, first) {
    this.#marks.push(this.#before < 0 ? first : Math.max(0, characters - this.#before));
    this.#before = characters;
    if (this.#marks.length > STRIP) this.#marks.shift();
  }

  draw() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    const scale = Math.min(devicePixelRatio || 1, 3);
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const step = width / STRIP;
    pen.fillStyle = paint("--strip-line");
    pen.fillRect(0, height - 1, width, 1);
    pen.fillStyle = paint("--strip-text");
    this.#marks.forEach((mark, index) => {
      if (!mark) return;
      const x = width - (this.#marks.length - index) * step;
      const tall = 3 + (height - 4) * Math.min(1, Math.log2(1 + mark) / 11);
      pen.fillRect(x, height - 1 - tall, Math.max(1.2, step - 0.6), tall);
    });
  }
}
