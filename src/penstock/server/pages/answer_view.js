// @ts-check
// One answer on the page: its parts, how it ended, its figures and the strip. Draws at most once a
// frame, and only what changed.

import { h, icon, iconButton, openMenu } from "./dom.js";
import { duration, number, seconds, t } from "./i18n.js";
import { copied, MarkdownView, reachable } from "./markdown.js";
import { Strip } from "./strip.js";
import { textOf, toolsOf } from "./answer.js";

/**
 * @typedef {object} AnswerActions
 * @property {() => void} again
 * @property {() => void} proceed        keep what came, ask to go on
 * @property {(step: number) => void} turn  to another version
 * @property {(anchor: HTMLElement) => void} more
 * @property {() => void} retryNow
 * @property {(results: {id: string, name: string, text: string}[]) => void} results
 * @property {() => void} drawn
 */

/** @typedef {{index: number, count: number, last: boolean, readOnly: boolean}} Place */

export class AnswerView {
  /** @type {{element: HTMLElement, update: (part: any, open: boolean, unfinished: boolean) => void}[]} */
  #parts = [];
  /** @type {Strip | null} */
  #strip = null;
  #frame = 0;
  #ended = false;
  #place = "";
  #ending = "";
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticking;

  /**
   * @param {import("./library.js").AnswerNode} node @param {import("./run.js").Run | null} run
   * @param {AnswerActions} actions
   */
  constructor(node, run, actions) {
    this.node = node;
    this.run = run;
    this.actions = actions;
    this.name = h("span", { class: "model" });
    this.body = h("div", { class: "parts" });
    this.waiting = h("p", { class: "waiting" }, h("span", { class: "pulse", "aria-hidden": "true" }), h("span"));
    this.ending = h("div", { class: "ending" });
    this.figures = h("p", { class: "figures" });
    this.stripPlace = h("div", { class: "strip-place" });
    this.actionsRow = h("div", { class: "actions" });
    this.foot = h("footer", {}, this.actionsRow, this.figures);
    this.element = h("article", { class: "turn answer", "data-node": node.id },
      h("header", {}, h("span", { class: "mark", "aria-hidden": "true" }), this.name),
      this.body, this.waiting, this.ending, this.stripPlace, this.foot);
    this.#follow();
    this.draw();
  }

  /** The answer is followed now, or again. @param {import("./run.js").Run | null} run */
  attach(run) {
    if (run === this.run) return;
    this.run = run;
    this.#strip?.close();
    this.#strip = null;
    this.stripPlace.replaceChildren();
    this.#ended = false;
    this.#follow();
    this.draw();
  }

  /** Another tab brought it further. @param {import("./library.js").AnswerNode} node */
  replace(node) {
    if (this.run && !this.run.node.answer.end) return;
    this.node = node;
    this.draw();
  }

  /** @param {Place} place */
  place(place) {
    const key = JSON.stringify(place);
    if (key === this.#place) return;
    this.#place = key;
    this.placed = place;
    this.#drawActions();
    this.#drawEnding();
  }

  close() {
    cancelAnimationFrame(this.#frame);
    clearInterval(this.#ticking);
    this.#strip?.close();
  }

  #follow() {
    this.run?.addEventListener("update", () => this.soon());
    if (this.run) {
      this.#strip = new Strip(this.run.timeline);
      this.stripPlace.replaceChildren(this.#strip.canvas);
    }
  }

  soon() {
    if (!this.#frame) {
      this.#frame = requestAnimationFrame(() => {
        this.#frame = 0;
        this.draw();
      });
    }
  }

  draw() {
    const { answer } = this.node;
    const open = !answer.end;
    this.element.setAttribute("aria-busy", String(open));
    this.name.textContent = answer.model || this.node.model;
    this.#drawParts(open);
    this.#drawWaiting(open);
    this.#drawEnding();
    this.#drawFigures();
    this.#strip?.update();
    this.stripPlace.hidden = !open && !this.run?.timeline.chunks && !this.run?.timeline.cuts;
    if (!open && !this.#ended) {
      this.#ended = true;
      reachable(this.element);
    }
    this.#drawActions();
    this.actions.drawn();
  }

  /** @param {boolean} open */
  #drawParts(open) {
    const { parts, sources, more } = this.node.answer;
    if (parts.length < this.#parts.length) {
      this.#parts = [];
      this.body.replaceChildren();
    }
    // What was broken off stays as it looked: half a link is no link for ever after.
    const unfinished = this.node.answer.end?.status !== "completed";
    parts.forEach((part, index) => {
      const growing = open && index === parts.length - 1;
      if (!this.#parts[index]) {
        this.#parts[index] = PART_VIEWS[part.kind]();
        this.body.insertBefore(this.#parts[index].element, this.body.querySelector(".sources, .note"));
      }
      this.#parts[index].update(part, growing || (open && part.kind === "tool"), unfinished && index === parts.length - 1);
    });
    if (sources.length && this.body.querySelectorAll(".sources li").length !== sources.length) {
      this.body.querySelector(".sources")?.remove();
      const items = sources.map((source) =>
        h("li", {}, h("a", { href: source.url, target: "_blank", rel: "noopener noreferrer nofollow", text: source.title })));
      this.body.append(h("section", { class: "sources" }, h("h4", { text: t("sources") }), h("ol", {}, ...items)));
    }
    if (more && !this.body.querySelector(".note")) this.body.append(h("p", { class: "note", text: t("more_choices") }));
  }

  /** What is going on while the answer is open. @param {boolean} open */
  #drawWaiting(open) {
    const state = this.run?.state;
    let words = "";
    let button = null;
    const said = this.node.answer.parts.length > 0;
    if (open && state) {
      if (state.stopping) words = state.attempt ? t("stopping_unreachable") : t("stopping");
      else if (state.phase === "waiting") {
        const left = Math.max(0, Math.ceil((state.until - Date.now()) / 1000));
        const why = t(/** @type {any} */ (`lost_${state.reason}`));
        words = left ? `${why} ${t("reconnecting_in", { count: left, attempt: state.attempt })}` : `${why} ${t("reconnecting")}`;
        button = left ? h("button", { type: "button", class: "link", text: t("retry_now"), onclick: () => this.actions.retryNow() }) : null;
      } else if (state.phase === "cut") words = t("cut_waiting", { count: Math.max(1, Math.ceil((state.until - Date.now()) / 1000)) });
      else if (state.phase === "unseen") words = t("unseen");
      else if (state.phase === "key") words = t("key_waiting");
      else if (!said) words = state.phase === "asking" ? t("asking") : t("thinking");
      else if (this.run && this.run.timeline.now - lastOf(this.run.timeline) > 3_000) words = t("silent_for", { seconds: seconds(this.run.timeline.now - lastOf(this.run.timeline), 0) });
    } else if (open) words = t("not_followed");
    const [pulse, text] = this.waiting.children;
    if (text.dataset.words !== words) {
      text.dataset.words = words;
      text.replaceChildren(words, ...(button ? [" ", button] : []));
    }
    this.waiting.hidden = !open || (!words && said && !state);
    this.waiting.classList.toggle("quiet", !words);
    this.waiting.classList.toggle("trouble", state?.phase === "waiting" || state?.phase === "cut");
    pulse.hidden = false;
    this.#tick(open && Boolean(state));
  }

  /** Countdowns and silences move although nothing comes. @param {boolean} on */
  #tick(on) {
    if (on && !this.#ticking) this.#ticking = setInterval(() => this.soon(), 500);
    if (!on && this.#ticking) {
      clearInterval(this.#ticking);
      this.#ticking = undefined;
    }
  }

  #drawEnding() {
    const { end, finish } = this.node.answer;
    const after = end?.retry_after ? Math.ceil(((end.at ?? 0) + end.retry_after * 1000 - Date.now()) / 1000) : 0;
    const key = JSON.stringify([end, finish, this.#place, Math.max(0, after)]);
    if (key === this.#ending) return;
    this.#ending = key;
    this.ending.replaceChildren();
    if (!end) return;
    const { title, tone, about } = outcome(this.node);
    this.element.dataset.status = end.status;
    this.ending.dataset.tone = tone;
    if (tone === "good") {
      this.#results();
      return;
    }
    const lines = [h("p", { class: "title" }, icon(tone === "calm" ? "stop" : "warning"), h("strong", { text: title }))];
    if (end.message && tone === "bad") lines.push(h("p", { text: end.message }));
    if (about) lines.push(h("p", { class: "advice", text: about }));
    if (end.code && tone === "bad") {
      const fault = end.fault ? t(/** @type {any} */ (`fault_${end.fault}`)) : "";
      lines.push(h("p", { class: "code-line" }, h("code", { text: end.code }), end.http_status ? ` · HTTP ${end.http_status}` : "", fault ? ` · ${fault}` : ""));
    }
    const buttons = h("div", { class: "buttons" });
    if (!this.placed?.readOnly && this.placed?.last) {
      const again = h("button", { type: "button", class: "button primary", text: after > 0 ? t("again_in", { count: after }) : t("try_again"), onclick: () => this.actions.again() });
      if (tone === "bad" || end.status === "interrupted" || end.status === "cancelled" || end.status === "expired") buttons.append(again);
      if (textOf(this.node.answer) && (end.status !== "completed" || finish === "length")) {
        buttons.append(h("button", { type: "button", class: "button", text: t("keep_going"), onclick: () => this.actions.proceed() }));
      }
    }
    if (buttons.childElementCount) lines.push(buttons);
    this.ending.append(...lines);
    if (after > 0) setTimeout(() => this.soon(), 500);
  }

  /** Tools were called: whoever has their results can give them. */
  #results() {
    const tools = toolsOf(this.node.answer);
    if (this.node.answer.finish !== "tool_calls" || !tools.length || !this.placed?.last || this.placed.readOnly) return;
    const fields = tools.map((tool) => h("textarea", { rows: 2, id: `result-${this.node.id}-${tool.call}`, placeholder: t("result_example") }));
    const send = () => this.actions.results(tools.map((tool, index) => ({ id: tool.id || `call_${tool.call}`, name: tool.name, text: fields[index].value })));
    this.ending.append(h("form", { class: "results", onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      send();
    } },
    h("p", { text: t("results_wanted") }),
    ...tools.map((tool, index) => h("div", {}, h("label", { for: fields[index].id }, t("result_of"), " ", h("code", { text: tool.name })), fields[index])),
    h("button", { class: "button primary", text: t("send_results") })));
  }

  #drawFigures() {
    const { answer } = this.node;
    const figures = this.run && this.run.figures.first ? this.run.figures : this.node.figures;
    const parts = [];
    if (answer.end?.status === "completed" && answer.finish !== "length" && answer.finish !== "content_filter") parts.push(t("complete"));
    const first = figures?.first;
    if (first) parts.push(t("first_after", { seconds: seconds(first, first < 10_000 ? 2 : 1) }));
    else if (answer.end?.timing?.first_output_ms) parts.push(t("first_after_gateway", { seconds: seconds(answer.end.timing.first_output_ms, 2) }));
    const output = answer.usage?.output_tokens;
    if (figures?.span && figures.span > 200 && answer.chunks > 1) {
      const rate = (output && answer.end ? output : answer.chunks) / (figures.span / 1000);
      const of = output && answer.end ? (answer.usage?.estimated ? "tokens_rate_estimated" : "tokens_rate") : "chunks_rate";
      parts.push(t(of, { rate: number(rate, rate < 10 ? 1 : 0) }));
    }
    if (answer.chunks) parts.push(t("chunks", { count: answer.chunks }));
    if (answer.usage) parts.push(t(answer.usage.estimated ? "tokens_estimated" : "tokens", { input: number(answer.usage.input_tokens ?? 0), output: number(output ?? 0) }));
    if (figures?.total) parts.push(duration(figures.total));
    else if (answer.end?.timing?.total_ms) parts.push(t("total_gateway", { seconds: duration(answer.end.timing.total_ms) }));
    const words = parts.join(" · ");
    if (this.figures.dataset.words === words) return;
    this.figures.dataset.words = words;
    this.figures.replaceChildren(...parts.flatMap((part) => [h("span", { text: part }), " "]).slice(0, -1));
  }

  #drawActions() {
    const { answer } = this.node;
    const place = this.placed;
    if (!place) return;
    const key = JSON.stringify([Boolean(answer.end), place, answer.stream !== ""]);
    if (this.actionsRow.dataset.key === key) return;
    this.actionsRow.dataset.key = key;
    const row = [];
    if (place.count > 1) row.push(...turning(place, this.actions.turn));
    if (answer.end) {
      if (textOf(answer)) row.push(iconButton("copy", t("copy_answer"), (event) => void copied(event, textOf(answer))));
      if (place.last && !place.readOnly) row.push(iconButton("again", t("regenerate"), () => this.actions.again()));
    }
    if (answer.stream) row.push(iconButton("more", t("more"), (event) => this.actions.more(/** @type {HTMLElement} */ (event.currentTarget))));
    this.actionsRow.replaceChildren(...row);
  }
}

/** ‹ 2/3 › @param {{index: number, count: number}} place @param {(step: number) => void} turn */
export function turning(place, turn) {
  const left = iconButton("left", t("version_before"), () => turn(-1), { class: "small" });
  const right = iconButton("right", t("version_after"), () => turn(1), { class: "small" });
  left.disabled = place.index === 0;
  right.disabled = place.index === place.count - 1;
  const label = t("version_of", { index: place.index + 1, count: place.count });
  return [h("span", { class: "versions", role: "group", "aria-label": label }, left, h("span", { "aria-hidden": "true", text: `${place.index + 1}/${place.count}` }), right)];
}

/** @param {import("./timeline.js").Timeline} timeline */
function lastOf(timeline) {
  return timeline.marks.at(-1)?.at ?? 0;
}

/** How an answer ended, for a person. @param {import("./library.js").AnswerNode} node */
export function outcome(node) {
  const { end, finish, parts } = node.answer;
  const code = end?.code ?? "";
  switch (end?.status) {
    case "completed":
      if (finish === "length") return { tone: "calm", title: t("ended_length"), about: t("ended_length_about") };
      if (finish === "content_filter") return { tone: "bad", title: t("ended_filter"), about: t("ended_filter_about") };
      if (!parts.length) return { tone: "calm", title: t("ended_empty"), about: t("ended_empty_about") };
      return { tone: "good", title: t("complete"), about: "" };
    case "cancelled":
      return { tone: "calm", title: t("ended_cancelled"), about: code === "not_confirmed" ? t("ended_not_confirmed") : "" };
    case "interrupted":
      return { tone: "bad", title: t("ended_interrupted"), about: adviceOf(code) || t("ended_interrupted_about") };
    case "expired":
      return { tone: "bad", title: t("ended_expired"), about: "" };
    case "refused":
      return { tone: "bad", title: t("ended_refused"), about: adviceOf(code) };
    case "gone":
      return { tone: "bad", title: t("ended_gone"), about: t("ended_gone_about") };
    case "unreadable":
      return { tone: "bad", title: t("ended_unreadable"), about: adviceOf(code) };
    default:
      return { tone: "bad", title: t("ended_failed"), about: adviceOf(code) || (end?.retryable ? t("advice_retry") : "") };
  }
}

const ADVICE = /** @type {Record<string, string>} */ ({
  gateway_restarted: "advice_restarted",
  gateway_shutdown: "advice_restarted",
  storage_unavailable: "advice_storage",
  draining: "advice_busy",
  overloaded: "advice_busy",
  rate_limit_exceeded: "advice_rate",
  insufficient_quota: "advice_quota",
  model_not_found: "advice_model",
  missing_api_key: "advice_key",
  invalid_api_key: "advice_key",
  context_length_exceeded: "advice_long",
  body_too_large: "advice_long",
  request_too_large: "advice_long",
  content_filter: "advice_filter",
  upstream_unreachable: "advice_unreachable",
  upstream_connect_timeout: "advice_unreachable",
  upstream_reset: "advice_cut",
  upstream_truncated: "advice_cut",
  upstream_timeout: "advice_timeout",
  upstream_silent: "advice_timeout",
  upstream_stalled: "advice_timeout",
  upstream_slow: "advice_timeout",
  generation_timeout: "advice_timeout",
  timeout: "advice_timeout",
  log_lost: "advice_log_lost",
  client_disconnected: "advice_left",
});

/** @param {string} code */
function adviceOf(code) {
  return ADVICE[code] ? t(/** @type {any} */ (ADVICE[code])) : "";
}

const PART_VIEWS = {
  text: () => markdownPart("markdown"),
  refusal: () => markdownPart("markdown refusal"),
  reasoning: reasoningPart,
  tool: toolPart,
};

/** @param {string} kind */
function markdownPart(kind) {
  const element = h("div", { class: kind });
  const view = new MarkdownView(element);
  return { element, update: (/** @type {any} */ part, /** @type {boolean} */ open, /** @type {boolean} */ unfinished) => view.update(part.text, open, unfinished) };
}

function reasoningPart() {
  const words = h("span");
  const inner = h("div", { class: "markdown" });
  const element = h("details", { class: "reasoning" }, h("summary", {}, icon("thought"), words, icon("chevron")), inner);
  const view = new MarkdownView(inner);
  const began = performance.now();
  let touched = false;
  let over = false;
  element.querySelector("summary").addEventListener("click", () => (touched = true));
  return {
    element,
    update: (/** @type {any} */ part, /** @type {boolean} */ open, /** @type {boolean} */ unfinished) => {
      if (open && !touched && !element.open) element.open = true;
      if (!open && !over) {
        // Only who saw it begin knows how long it took.
        const took = performance.now() - began;
        words.textContent = took > 500 ? t("reasoned_for", { seconds: seconds(took) }) : t("reasoning");
        if (!touched) element.open = false;
        over = true;
      }
      if (open) words.textContent = t("reasoning_now");
      view.update(part.text, open, unfinished);
    },
  };
}

function toolPart() {
  const name = h("code", { class: "name" });
  const pre = h("pre", {}, h("code"));
  const words = h("span", { class: "called" });
  const element = h("section", { class: "tool" }, h("header", {}, icon("tool"), words, name), pre);
  return {
    element,
    update: (/** @type {import("./answer.js").ToolPart} */ part, /** @type {boolean} */ open) => {
      name.textContent = part.name;
      words.textContent = open ? t("tool_calling") : t("tool_called");
      let text = part.text;
      if (!open) {
        try {
          text = JSON.stringify(JSON.parse(part.text), null, 2);
        } catch {
          // Arguments that are no JSON are shown as they came.
        }
      }
      pre.hidden = !text;
      pre.firstElementChild.textContent = text;
    },
  };
}

/** Open the menu of an answer. @param {HTMLElement} anchor @param {Parameters<typeof openMenu>[1]} items */
export function answerMenu(anchor, items) {
  openMenu(anchor, items);
}
