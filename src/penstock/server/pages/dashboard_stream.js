// @ts-check
// One stream's own page: what is known of it, its attempts on a time line, every entry of its log, who
// reads it; and the verbs: stop, share, read. Drawn anew when the feed says that something changed.

import { Refusal } from "./api.js";
import { confirmed, frame, notice } from "./dialogs.js";
import { copyText, h, icon, iconButton } from "./dom.js";
import { language, number, t } from "./i18n.js";
import { paint } from "./dashboard_charts.js";
import { address, word } from "./dashboard_view.js";
import { named, span, usd, w } from "./dashboard_words.js";
import { morph } from "./morph.js";
import { Follower } from "./stream.js";
import { Strip } from "./strip.js";
import { Timeline } from "./timeline.js";

const MAX_CELLS = 20_000;
const MAX_LISTED = 300;
const MAX_WORDS = 200_000;
/** The feed tells each second; of an open stream the rest is asked for so often at most. */
const REFRESH = 1_900;

/** What the pieces of an attempt's lane are called. @type {Record<string, string>} */
const LANES = { connect: "connecting", wait: "waiting", output: "output", broke: "failed_word" };

const KINDS = /** @type {Record<string, string>} */ ({ text: "text", reasoning: "reasoning", refusal: "text", tool_call: "tool", seam: "seam" });

export class StreamPage {
  /** @type {any} */
  #told = null;
  /** @type {Follower | null} */
  #follower = null;
  #asked = 0;
  #asking = false;
  /** @type {{kind: string, size: number, about: string}[]} */
  #cells = [];
  #count = 0;
  #words = "";
  #timeline = new Timeline();
  #strip = new Strip(this.#timeline);
  #live = false;
  #drawn = 0;
  #canvas = h("canvas", { class: "cells", role: "img", "aria-label": "" });

  /** @param {import("./api.js").Api} api @param {HTMLElement} place */
  constructor(api, place) {
    this.api = api;
    this.place = place;
    this.stream = "";
    /** Where the overview was. */
    this.back = "#/";
  }

  /** @param {string} stream */
  async open(stream) {
    this.close();
    this.stream = stream;
    this.#told = null;
    this.#cells = [];
    this.#count = 0;
    this.#words = "";
    this.#timeline = new Timeline();
    this.#strip = new Strip(this.#timeline);
    this.place.hidden = false;
    this.place.replaceChildren(this.#head(), h("div", { class: "stream-body" }));
    await this.refresh();
    if (this.stream === stream && this.#told) this.#follow();
  }

  close() {
    this.stream = "";
    this.place.hidden = true;
    this.#follower?.close();
    this.#follower = null;
    this.#strip.close();
  }

  /** The feed has a frame. @param {any} told */
  frame(told) {
    if (!this.stream || !this.#told) return;
    const ended = told.ended.some((/** @type {any} */ one) => one.id === this.stream);
    const open = this.#told.status === "open" || this.#told.readers;
    if (ended || (open && Date.now() - this.#asked > REFRESH)) void this.refresh();
  }

  /** Ask for the explanation again, and draw it. */
  async refresh() {
    if (this.#asking) return;
    const { stream } = this;
    this.#asking = true;
    this.#asked = Date.now();
    try {
      const told = await this.api.json(`v1/streams/${stream}/explanation`);
      if (this.stream !== stream) return;
      this.#told = told;
      this.draw();
    } catch (error) {
      if (this.stream === stream && !this.#told) {
        const text = error instanceof Refusal && error.status >= 404 ? w("no_stream") : String(/** @type {any} */ (error).message);
        this.place.querySelector(".stream-body")?.replaceChildren(h("p", { class: "card problem", text }));
      }
    } finally {
      this.#asking = false;
    }
  }

  // --- reading the log ------------------------------------------------------------------------------

  #follow() {
    const { stream } = this;
    const here = () => this.stream === stream;
    this.#follower = new Follower(this.api, { stream }, {
      named: () => {},
      opened: () => {
        this.#live = this.#told.status === "open";
        this.#timeline.opened(false);
      },
      entry: (entry, _cursor, caught) => here() && this.#entry(entry, caught),
      heartbeat: () => this.#timeline.heartbeat(),
      restarted: () => {
        this.#cells = [];
        this.#count = 0;
        this.#words = "";
      },
      lost: (why) => this.#timeline.lost(why),
      failed: () => this.#timeline.end(),
      state: () => {},
    });
    void this.#follower.run().finally(() => {
      this.#timeline.end();
      if (here()) this.#drawLog(true);
    });
  }

  /** @param {any} entry @param {boolean} caught */
  #entry(entry, caught) {
    const kind = KINDS[entry.type] ?? "other";
    const size = (entry.delta ?? "").length;
    this.#count += 1;
    if (this.#cells.length < MAX_CELLS) {
      const about = entry.type === "finish" ? entry.reason : entry.type === "end" ? entry.status : entry.target ?? entry.name ?? "";
      this.#cells.push({ kind, size, about: `${entry.type}${about ? ` ${about}` : ""}` });
    }
    if ((entry.type === "text" || entry.type === "refusal") && !entry.index && this.#words.length < MAX_WORDS) this.#words += entry.delta;
    if (size) this.#timeline.chunk(kind === "tool" ? "tool" : kind, size, caught);
    this.#strip.update();
    if (performance.now() - this.#drawn > 120) this.#drawLog(false);
  }

  // --- drawing --------------------------------------------------------------------------------------

  #head() {
    return h("header", { class: "stream-head" },
      h("a", { class: "button", href: this.back }, icon("left"), w("back")),
      h("h1", { text: this.stream }),
      h("span", { class: "status" }),
      h("div", { class: "buttons" }));
  }

  /** Draw what is known, in the language of now. */
  draw() {
    const told = this.#told;
    if (!told || !this.stream) return;
    const head = this.#head();
    head.querySelector(".status").replaceWith(status(told.status, told.end?.code));
    const buttons = head.querySelector(".buttons");
    if (told.status === "open") buttons.append(h("button", { type: "button", class: "button danger", id: "stop-stream", onclick: () => void this.#stop() }, icon("stop"), w("stop_stream")));
    buttons.append(
      h("button", { type: "button", class: "button", id: "share-stream", onclick: () => this.#share() }, icon("link"), w("share")),
      h("a", { class: "button", href: `./#/s/${this.stream}` }, icon("book"), w("read_it")),
      iconButton("copy", w("copy"), () => void copy(this.stream)));
    const body = h("div", { class: "stream-body" }, ...[
      this.#whoAndHow(), this.#policies(), this.#line(), this.#spans(), h("div", { class: "pile" }, this.#readers(), this.#used(), this.#seams()), this.#log(),
    ].filter(Boolean));
    morph(this.place, head, body);
    this.#drawLog(true);
  }

  #whoAndHow() {
    const { asked, answered_as: answered, end, silent_ms: silent, doing } = this.#told;
    const facts = /** @type {[string, any][]} */ ([
      [w("fact_at"), new Date(asked.at * 1000).toLocaleString(language())],
      [w("fact_route"), asked.route], [w("fact_dialect"), asked.dialect], [w("fact_key"), asked.key], [w("fact_team"), asked.team],
      [w("fact_preset"), asked.preset], [w("fact_request"), asked.request_id],
      [w("fact_tokens"), asked.input_tokens ? number(asked.input_tokens) : ""], [w("fact_rest"), asked.at_rest],
      [w("fact_answered"), answered], ...Object.entries(asked.metadata ?? {}),
    ]);
    const how = end
      ? h("p", {}, h("b", { text: `${w("end")}: ` }), [end.status, end.finish_reason, end.code].filter(Boolean).join(" · "), end.message ? h("span", { class: "note block", text: end.message }) : null)
      : h("p", {}, h("b", { text: `${w("goes_on")}: ` }), doing ? named("doing", doing) : "", silent > 2_000 ? ` · ${w("silent", { seconds: span(silent) })}` : "");
    return card("", h("p", { class: "lead" }, ...askedBy(asked)), h("p", { class: "note", text: this.#gist() }),
      h("dl", { class: "facts" }, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", { text: name }), h("dd", { text: String(value) })])), how);
  }

  /** The whole story in one line. */
  #gist() {
    const { attempts = [], timing, end, cost_usd: cost } = this.#told;
    const failed = attempts.filter((/** @type {any} */ one) => one.code && one.code !== "superseded").length;
    return [
      timing ? `${end ? "" : `${w("so_far")} `}${span(timing.total_ms)}` : "",
      timing?.first_output_ms ? w("first_after", { span: span(timing.first_output_ms) }) : "",
      attempts.length > 1 ? w("attempts_failed", { count: attempts.length, failed }) : "",
      cost === undefined ? "" : usd(cost), end?.fault ? w("fault", { whose: named("whose", end.fault) }) : "",
    ].filter(Boolean).join(" · ");
  }

  #policies() {
    const rows = this.#told.policies ?? [];
    if (!rows.length) return card(w("policies"), h("p", { class: "note", text: w("no_policies") }));
    return card(w("policies"), h("ul", { class: "rows" }, ...rows.map((/** @type {any} */ one) => h("li", {},
      h("b", { text: one.policy }), " ", h("span", { class: `verdict ${one.verdict}`, text: `${named("verdict", one.verdict)}${one.waited_ms ? ` ${span(one.waited_ms)}` : ""}` }),
      h("span", { class: "note block", text: one.detail ?? "" })))));
  }

  #line() {
    const { attempts = [], way = {}, timing } = this.#told;
    if (!attempts.length) return null;
    const total = Math.max(timing?.total_ms ?? 0, ...attempts.map((/** @type {any} */ one) => one.ended_ms ?? 0), 1);
    const lanes = attempts.map((/** @type {any} */ one) => {
      const { began_ms: began = 0, ended_ms: ended = 0, connect_ms: connect = 0, wait_ms: wait = 0 } = one;
      const why = [named("reason", one.reason ?? "") || w("before_restart"), one.code ?? "", one.timed ? span(ended - began) : "", one.cost_usd === undefined ? "" : usd(one.cost_usd)];
      const bar = h("div", { class: "lane", "aria-hidden": "true" });
      const exactly = (/** @type {string} */ kind, /** @type {number} */ ms) => `${w(/** @type {any} */ (LANES[kind]))}: ${number(ms, 3)} ms`;
      if (one.timed) {
        const sent = Math.min(ended, began + connect);
        const first = wait ? Math.min(ended, began + connect + wait) : ended;
        for (const [kind, from, to] of /** @type {[string, number, number][]} */ ([["connect", began, sent], ["wait", sent, first], ["output", first, ended]])) {
          if (to <= from && kind !== "wait") continue;
          const piece = h("span", { class: `piece ${kind}`, title: exactly(kind, to - from) });
          piece.style.left = `${(from / total) * 100}%`;
          piece.style.width = `max(1px, ${((to - from) / total) * 100}%)`;
          bar.append(piece);
        }
        if (one.code && one.code !== "superseded") {
          const mark = h("span", { class: "piece broke", title: one.code });
          mark.style.left = `calc(${(ended / total) * 100}% - 3px)`;
          bar.append(mark);
        }
      }
      return h("li", {}, h("p", {}, h("b", { text: `${one.number}. ${one.target}` }), " ", h("span", { class: "note", text: why.filter(Boolean).join(" · ") })), bar);
    });
    const queued = timing?.queue_ms ?? 0;
    if (queued > total / 100) {
      const bar = h("div", { class: "lane", "aria-hidden": "true" });
      const piece = h("span", { class: "piece queue", title: `${w("span_queue")}: ${number(queued, 3)} ms` });
      piece.style.width = `${(queued / total) * 100}%`;
      bar.append(piece);
      lanes.unshift(h("li", {}, h("p", {}, h("b", { text: w("span_queue") }), " ", h("span", { class: "note", text: span(queued) })), bar));
    }
    return card(w("time_line"),
      way.targets?.length > 1 ? h("p", { class: "note" }, `${w("way", { balance: named("balance", way.balance ?? "order") })} ${way.targets.join(" → ")}`) : null,
      ...(way.passed_over ?? []).map((/** @type {string} */ target) => h("p", { class: "note", text: w("passed_over", { target }) })),
      h("ol", { class: "lanes" }, ...lanes),
      h("p", { class: "scale" }, h("span", { text: "0" }), h("span", { text: span(total) })),
      h("ul", { class: "legend" }, ...Object.keys(LANES).map((kind) => h("li", {}, h("span", { class: `key ${kind}` }), w(/** @type {any} */ (LANES[kind]))))));
  }

  #spans() {
    const timing = this.#told.timing;
    if (!timing) return null;
    const names = ["queue", "failed", "connect", "wait", "stream", "gateway"];
    const known = names.map((name) => ({ name, value: timing[`${name}_ms`] ?? 0 })).filter((one) => one.value > 0);
    if (!known.length) return null;
    const total = Math.max(timing.total_ms ?? 0, 1e-3);
    return card(w("where_time"), h("ul", { class: "bars" }, ...known.map((one) => barRow(w(/** @type {any} */ (`span_${one.name}`)), span(one.value), one.value / total, "", `${number(one.value, 3)} ms`))),
      h("p", { class: "sum" }, h("span", { text: w("in_all") }), h("b", { text: span(total), title: `${number(total, 3)} ms` })),
      timing.max_gap_ms ? h("p", { class: "note", text: w("longest_gap", { span: span(timing.max_gap_ms) }) }) : null);
  }

  #seams() {
    const seams = this.#told.seams ?? [];
    if (!seams.length) return null;
    return card(w("seams"), h("ul", { class: "rows" }, ...seams.map((/** @type {any} */ one) => h("li", {
      text: w("seam_at", { entry: one.entry, target: one.target ?? "", mode: named("mode", one.mode), code: one.code ?? "–" }),
    }))));
  }

  #used() {
    const { cost_usd: cost, attempts = [] } = this.#told;
    const usage = this.#told.usage ?? sum(attempts);
    if (!usage && cost === undefined) return null;
    const about = usage ? t(usage.estimated ? "tokens_estimated" : "tokens", { input: number(usage.input_tokens ?? 0), output: number(usage.output_tokens ?? 0) }) : "";
    return card(w("used"), h("p", { text: [about, cost === undefined ? "" : usd(cost)].filter(Boolean).join(" · ") }));
  }

  #readers() {
    const { readers = [], entries } = this.#told;
    if (!readers.length) return card(w("readers_now"), h("p", { class: "note", text: w("no_readers") }));
    return card(w("readers_now"), h("ul", { class: "bars" }, ...readers.map((/** @type {any} */ one) => barRow(
      `${one.principal} · ${one.format}`,
      `${number(one.entries)} / ${number(entries)} · ${one.lag ? w("lag", { count: one.lag }) : w("caught_up")} · ${w("reader_for", { span: span(one.for_ms ?? 0) })}`,
      entries ? one.entries / entries : 0))));
  }

  #log() {
    return card(w("log"), h("p", { class: "note", text: `${w("log_about")}${this.#live ? ` ${w("log_seen")}` : ""}` }),
      this.#canvas,
      h("ul", { class: "legend" }, ...["text", "reasoning", "tool", "other", "seam"].map((kind) => h("li", {}, h("span", { class: `key ${kind}` }), named("kind", kind)))),
      this.#live ? this.#strip.canvas : null,
      h("details", { id: "entries-table", ontoggle: () => this.#drawLog(true) }, h("summary", { text: w("log_table") }), h("div", { class: "table-place", "data-keep": "" })),
      h("details", { id: "words-shown", ontoggle: () => this.#drawLog(true) }, h("summary", { text: w("words") }), h("p", { class: "note", text: w("words_about") }), h("pre", { class: "words", tabindex: 0, "data-keep": "" })));
  }

  /** @param {boolean} all */
  #drawLog(all) {
    this.#drawn = performance.now();
    const canvas = this.#canvas;
    if (!canvas.isConnected) return;
    if (this.#live && !this.place.querySelector("canvas.strip")) this.place.querySelector("#entries-table")?.before(this.#strip.canvas);
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = Math.min(devicePixelRatio || 1, 3);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const cells = this.#cells;
    const step = width / Math.max(cells.length, 120);
    const colours = /** @type {Record<string, string>} */ ({ text: paint("--strip-text"), reasoning: paint("--strip-reasoning"), tool: paint("--strip-tool"), other: paint("--strip-heartbeat"), seam: paint("--strip-cut") });
    const counts = /** @type {Record<string, number>} */ ({});
    cells.forEach((cell, index) => {
      counts[cell.kind] = (counts[cell.kind] ?? 0) + 1;
      const tall = cell.kind === "seam" ? height : cell.size ? 5 + (height - 6) * Math.min(1, Math.log2(1 + cell.size) / 7) : 7;
      pen.fillStyle = colours[cell.kind];
      pen.fillRect(index * step, height - tall, Math.max(0.8, step - (step > 2 ? 1 : 0)), tall);
    });
    canvas.setAttribute("aria-label", w("log_words", { count: this.#count, kinds: Object.entries(counts).map(([kind, count]) => `${named("kind", kind)} ${count}`).join(", ") }));
    const table = this.place.querySelector("#entries-table[open] .table-place");
    if (table && all) {
      const shown = cells.slice(0, MAX_LISTED);
      table.replaceChildren(h("table", {}, h("tbody", {}, ...shown.map((cell, index) => h("tr", {}, h("td", { class: "number", text: number(index + 1) }), h("td", { text: cell.about }), h("td", { class: "number", text: cell.size ? number(cell.size) : "" }))))),
        this.#count > shown.length ? h("p", { class: "note", text: w("log_more", { count: this.#count - shown.length }) }) : "");
    }
    const words = this.place.querySelector("#words-shown[open] .words");
    if (words) words.textContent = this.#words;
  }

  // --- verbs ----------------------------------------------------------------------------------------

  async #stop() {
    const { stream } = this;
    if (!(await confirmed(w("stop_title"), w("stop_about"), w("stop_stream")))) return;
    try {
      await this.api.json(`v1/streams/${stream}/cancel`, { method: "POST" });
      notice(w("stopped"));
    } catch (error) {
      notice(String(/** @type {any} */ (error).message));
    }
    await this.refresh();
  }

  #share() {
    const { stream } = this;
    const dialog = frame("small-dialog", w("share"));
    const field = h("div", { class: "field", hidden: true });
    const choices = [[3_600, w("share_hour")], [86_400, w("share_day")]].map(([ttl, words], index) =>
      h("label", { class: "choice" }, h("input", { type: "radio", name: "ttl", value: ttl, checked: index === 0 }), h("span", { text: words })));
    dialog.querySelector(".content").append(h("form", { onsubmit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      const ttl = Number(dialog.querySelector("input[name=ttl]:checked").value);
      try {
        const made = await this.api.json(`v1/streams/${stream}/links`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ scope: "read", ttl_s: ttl }) });
        const url = new URL(made.url.replace(/^\//, ""), this.api.url("")).href;
        const input = h("input", { id: "share-url", type: "text", readonly: true, value: url });
        field.replaceChildren(h("label", { for: "share-url", text: w("share_link") }), input, h("div", { class: "buttons" }, h("button", { type: "button", class: "button", onclick: () => void copy(url) }, icon("copy"), w("copy"))));
        field.hidden = false;
        input.select();
      } catch (error) {
        notice(String(/** @type {any} */ (error).message));
      }
    } }, h("p", { text: w("share_about") }), h("div", { class: "choices" }, ...choices),
    h("div", { class: "buttons" }, h("button", { class: "button primary", text: w("share_make") })), field));
    dialog.showModal();
  }
}

/** @param {string} text */
async function copy(text) {
  notice((await copyText(text)) ? w("copied") : w("not_copied"));
}

/** @param {string} title @param {...any} children */
function card(title, ...children) {
  return h("section", { class: "card" }, title ? h("h2", { text: title }) : null, ...children);
}

/** What all attempts used, where the answer never came as far as to say it. @param {any[]} attempts */
function sum(attempts) {
  const found = attempts.map((one) => one.usage).filter(Boolean);
  const all = (/** @type {string} */ name) => found.reduce((total, one) => total + (one[name] ?? 0), 0);
  return found.length ? { input_tokens: all("input_tokens"), output_tokens: all("output_tokens"), estimated: found.some((one) => one.estimated) } : null;
}

/** Who asked for what, each a link to all that they ask for. @param {any} asked */
function askedBy({ principal, model }) {
  const links = /** @type {Record<string, Node>} */ ({
    "{who}": h("a", { href: address({ q: word("principal", principal) }), text: principal }),
    "{model}": h("a", { href: address({ q: word("model", model) }), text: model }),
  });
  return w("asked_by", { who: "{who}", model: "{model}" }).split(/(\{who\}|\{model\})/).map((/** @type {string} */ part) => links[part] ?? part);
}

/** A row with a bar behind its words. @param {string | Node} name @param {string} value @param {number} share @param {string} [kind] @param {string} [exact] */
export function barRow(name, value, share, kind = "", exact = "") {
  const bar = h("span", { class: `bar ${kind}`, "aria-hidden": "true" });
  bar.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return h("li", {}, h("span", { class: "name" }, name), h("span", { class: "value", title: exact || null, text: value }), h("span", { class: "bar-place" }, bar));
}

/** How a stream stands, as a badge. @param {string} state @param {string} [code] */
export function status(state, code) {
  return h("span", { class: `status ${state}`, text: code ? `${state} · ${code}` : state });
}
