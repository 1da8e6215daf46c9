// @ts-check
// The conversation in the middle: questions, answers, which versions are shown, and what can be done
// with them. It keeps to the newest line only while the person is there.

import { AnswerView, answerMenu, turning } from "./answer_view.js";
import { newAnswer, textOf } from "./answer.js";
import { h, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { newId, pathOf, pathTo, ROOT, titleOf, versions } from "./library.js";
import { copied } from "./markdown.js";
import { requestOf } from "./request.js";
import { Run } from "./run.js";

/** How near to the end still counts as there. */
const NEAR = 60;
const MAX_ANNOUNCED = 3_000;

/** Emits `change` when what is shown, or whether something is running, is another. */
export class Thread extends EventTarget {
  /** @type {Map<string, import("./library.js").Node>} */
  nodes = new Map();
  conversation = "";
  /** The answer that is being followed. @type {Run | null} */
  run = null;
  /** @type {Map<string, AnswerView>} */
  #views = new Map();
  /** The keys of what is on the page, in order. @type {string[]} */
  #shown = [];
  #stuck = true;
  #editing = "";
  #opening = 0;

  /**
   * @param {object} parts
   * @param {HTMLElement} parts.scroller @param {HTMLElement} parts.column @param {HTMLElement} parts.jump
   * @param {HTMLElement} parts.empty
   * @param {import("./api.js").Api} parts.api @param {import("./library.js").Library} parts.library
   * @param {import("./preferences.js").Preferences} parts.preferences
   * @param {(text: string) => void} parts.announce
   * @param {(anchor: HTMLElement, node: import("./library.js").AnswerNode, path: import("./library.js").Node[]) => Parameters<typeof answerMenu>[1]} parts.menu
   */
  constructor(parts) {
    super();
    this.parts = parts;
    parts.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    parts.jump.addEventListener("click", () => this.toEnd(true));
    new ResizeObserver(() => this.#stick()).observe(parts.column);
    new ResizeObserver(() => this.#stick()).observe(parts.scroller);
    parts.library.addEventListener("change", (/** @type {any} */ event) => {
      if (event.detail.conversation === this.conversation) void this.#reload();
    });
  }

  get busy() {
    return Boolean(this.run && !this.run.node.answer.end);
  }

  get path() {
    const chosen = this.parts.library.get(this.conversation)?.chosen ?? {};
    return pathOf(this.nodes, chosen);
  }

  /** Show a conversation; "" is a new one. @param {string} id */
  async open(id) {
    const opening = (this.#opening += 1);
    const nodes = id ? await this.parts.library.nodes(id) : new Map();
    if (opening !== this.#opening) return;
    this.#leave();
    this.conversation = id;
    this.nodes = nodes;
    this.#stuck = true;
    this.render();
    this.#followOpen();
    this.toEnd();
  }

  /** Show one answer that is no part of a conversation here, by its stream. @param {string} stream */
  async openStream(stream) {
    this.#opening += 1;
    this.#leave();
    this.conversation = "";
    /** @type {import("./library.js").AnswerNode} */
    const node = {
      id: `stream-${stream}`, conversation: "", parent: ROOT, role: "answer", at: 0, model: "", settings: {},
      key: "", body: "", answer: { ...newAnswer(), stream }, figures: null,
    };
    this.nodes = new Map([[node.id, node]]);
    this.#start(node);
    this.render();
  }

  get readOnly() {
    return this.conversation === "" && this.nodes.size > 0;
  }

  // --- what can be done ---------------------------------------------------------------------------

  /**
   * Ask: adds a question and its answer to the end of what is shown.
   * @param {string} text @param {{model: string, settings: any, script: any}} how
   */
  async ask(text, how) {
    if (!this.conversation) {
      const made = await this.parts.library.create(titleOf(text));
      this.conversation = made.id;
      this.nodes = new Map();
    }
    await this.#question({ text }, this.path.at(-1)?.id ?? ROOT, how);
  }

  /** Ask in another way: a new version beside the old question. @param {string} id @param {string} text @param {any} how */
  async askAgain(id, text, how) {
    const node = this.nodes.get(id);
    if (node) await this.#question({ text }, node.parent, how);
  }

  /**
   * Another answer to the same question; or, where this one could not be read on, the rest of it.
   * @param {string} id @param {{model: string, settings: any, script: any}} how
   */
  async again(id, how) {
    const node = this.nodes.get(id);
    if (node?.role !== "answer") return;
    if (node.answer.end?.status === "unreadable" && node.answer.stream) {
      node.answer.end = null;
      this.#start(node);
      this.render();
    } else await this.#answer(node.parent, how);
  }

  /** @param {{id: string, name: string, text: string}[]} results @param {any} how */
  async giveResults(results, how) {
    const text = results.map((result) => `${result.name}: ${result.text}`).join("\n");
    await this.#question({ text, results }, this.path.at(-1)?.id ?? ROOT, how);
  }

  /** @param {{text: string, results?: any}} said @param {string} parent @param {any} how */
  async #question(said, parent, how) {
    /** @type {import("./library.js").UserNode} */
    const node = { id: newId(), conversation: this.conversation, parent, role: "user", at: Date.now(), ...said };
    this.nodes.set(node.id, node);
    await this.parts.library.add(node);
    await this.#answer(node.id, how);
  }

  /** @param {string} parent @param {{model: string, settings: any, script: any}} how */
  async #answer(parent, { model, settings, script }) {
    if (this.run && this.busy) {
      // Asked in another way before it was answered: the first answer is wanted no more.
      void this.run.follower.stop();
      this.run.close();
    }
    const body = JSON.stringify(requestOf(pathTo(this.nodes, parent), model, settings, script));
    /** @type {import("./library.js").AnswerNode} */
    const node = {
      id: newId(), conversation: this.conversation, parent, role: "answer", at: Date.now(), model, settings,
      key: `page-${newId()}`, body, answer: newAnswer(), figures: null,
    };
    this.nodes.set(node.id, node);
    // Kept before it is asked for: a page that is closed in between asks for the same, under the same key.
    await this.parts.library.add(node);
    this.#stuck = true;
    this.#start(node);
    this.render();
    this.toEnd();
  }

  stop() {
    void this.run?.follower.stop();
  }

  /** @param {number} pause */
  cut(pause) {
    this.run?.follower.cut(pause);
  }

  /** Open the last question for editing. */
  editLast() {
    const last = [...this.path].reverse().find((node) => node.role === "user" && !node.results);
    if (last && !this.busy) this.#edit(last.id);
  }

  // --- following ----------------------------------------------------------------------------------

  #leave() {
    const run = this.run;
    this.run = null;
    run?.close();
    for (const view of this.#views.values()) view.close();
    this.#views.clear();
    this.#shown = [];
    this.#editing = "";
    this.parts.column.replaceChildren();
  }

  /** An answer that has not ended goes on being read. */
  #followOpen() {
    const last = this.path.at(-1);
    if (last?.role !== "answer" || last.answer.end || this.run?.node.id === last.id) return;
    if (!last.answer.stream && !last.body) return;
    this.run?.close();
    this.#start(last);
    this.render();
  }

  /** @param {import("./library.js").AnswerNode} node */
  #start(node) {
    const run = new Run(this.parts.api, node, (changed) => this.parts.library.progress(changed));
    this.run = run;
    this.parts.announce(t("announce_begun"));
    let phase = "";
    run.addEventListener("update", () => {
      if (run.state.phase === phase) return;
      phase = run.state.phase;
      this.dispatchEvent(new Event("change"));
    });
    run.addEventListener("end", () => {
      const { end } = node.answer;
      const said = textOf(node.answer);
      if (end?.status === "completed") this.parts.announce(`${t("announce_ended")} ${said.slice(0, MAX_ANNOUNCED)}`);
      else this.parts.announce(end?.message || t("ended_cancelled"));
      this.dispatchEvent(new Event("change"));
    });
    void run.start();
    this.dispatchEvent(new Event("change"));
  }

  /** Another tab did something here. */
  async #reload() {
    const fresh = await this.parts.library.nodes(this.conversation);
    for (const [id, node] of fresh) {
      const known = this.nodes.get(id);
      // What we follow ourselves is at least as far.
      if (known?.role === "answer" && known === this.run?.node) continue;
      this.nodes.set(id, node);
      if (node.role === "answer") this.#views.get(id)?.replace(node);
    }
    if (!this.parts.library.get(this.conversation)) {
      location.hash = "";
      return;
    }
    this.render();
    this.#followOpen();
  }

  // --- drawing ------------------------------------------------------------------------------------

  /** Bring the page to what is: nodes that are shown already stay as they are. */
  render() {
    const { column, empty } = this.parts;
    const path = this.path;
    const readOnly = this.readOnly;
    if (this.run && !path.some((node) => node.id === this.run?.node.id)) {
      // Another version is looked at: this one goes on without us, and is followed again when it is shown.
      this.run.close();
      this.run = null;
    }
    empty.hidden = path.length > 0;
    const keys = path.map((node) => (node.id === this.#editing ? `edit-${node.id}` : node.id));
    let same = 0;
    while (same < keys.length && keys[same] === this.#shown[same]) same += 1;
    for (const element of [...column.children].slice(same)) element.remove();
    for (const id of this.#shown.slice(same)) {
      this.#views.get(id)?.close();
      this.#views.delete(id);
    }
    this.#shown = keys;
    path.slice(same).forEach((node) => column.append(node.role === "user" ? this.#userElement(node) : this.#answerElement(node)));
    path.forEach((node, index) => {
      const all = versions(this.nodes, node.parent);
      const place = { index: all.indexOf(node), count: all.length, last: index === path.length - 1, readOnly };
      if (node.role === "answer") {
        const view = this.#views.get(node.id);
        if (this.run?.node.id === node.id) view?.attach(this.run);
        view?.place(place);
      } else this.#userActions(node, /** @type {HTMLElement} */ (column.children[index]), place);
    });
    this.dispatchEvent(new Event("change"));
  }

  /** @param {import("./library.js").UserNode} node */
  #userElement(node) {
    if (node.id === this.#editing) return this.#editor(node);
    return h("article", { class: "turn question", "data-node": node.id },
      h("h2", { class: "vh", text: t("you") }),
      h("div", { class: "said", text: node.text }),
      h("div", { class: "actions" }));
  }

  /** @param {import("./library.js").UserNode} node @param {HTMLElement} element @param {{index: number, count: number, last: boolean, readOnly: boolean}} place */
  #userActions(node, element, place) {
    const row = /** @type {HTMLElement | null} */ (element.querySelector(":scope > .actions"));
    const key = JSON.stringify(place);
    if (!row || row.dataset.key === key) return;
    row.dataset.key = key;
    row.replaceChildren(
      ...(place.count > 1 ? turning(place, (step) => this.#turn(node, step)) : []),
      iconButton("copy", t("copy_question"), (event) => void copied(event, node.text), { class: "small" }),
      ...(node.results ? [] : [iconButton("edit", t("edit"), () => this.#edit(node.id), { class: "small" })]),
    );
  }

  /** @param {string} id */
  #edit(id) {
    this.#editing = id;
    this.render();
    const area = /** @type {HTMLTextAreaElement | null} */ (this.parts.column.querySelector(".editor textarea"));
    area?.focus();
    area?.setSelectionRange(area.value.length, area.value.length);
  }

  /** @param {import("./library.js").UserNode} node */
  #editor(node) {
    const area = h("textarea", { "aria-label": t("edit"), rows: Math.min(12, node.text.split("\n").length + 1) });
    area.value = node.text;
    const close = () => {
      this.#editing = "";
      this.render();
    };
    const send = () => {
      const text = area.value.trim();
      if (!text) return;
      this.#editing = "";
      this.dispatchEvent(new CustomEvent("resend", { detail: { id: node.id, text } }));
    };
    area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        send();
      }
    });
    return h("form", { class: "turn question editor", onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      send();
    } }, area, h("p", { class: "hint", text: t("edit_hint") }), h("div", { class: "buttons" },
      h("button", { class: "button primary", text: t("send") }),
      h("button", { type: "button", class: "button", text: t("cancel"), onclick: close })));
  }

  /** @param {import("./library.js").AnswerNode} node */
  #answerElement(node) {
    const run = this.run?.node.id === node.id ? this.run : null;
    const tell = (/** @type {string} */ name, /** @type {any} */ detail = {}) => this.dispatchEvent(new CustomEvent(name, { detail: { id: node.id, ...detail } }));
    const view = new AnswerView(node, run, {
      again: () => tell("again"),
      proceed: () => tell("proceed"),
      turn: (step) => void this.#turn(node, step),
      more: (anchor) => answerMenu(anchor, this.parts.menu(anchor, node, pathTo(this.nodes, node.parent))),
      retryNow: () => this.run?.follower.retryNow(),
      results: (results) => tell("results", { results }),
      drawn: () => this.#stick(),
    });
    this.#views.set(node.id, view);
    return view.element;
  }

  /** Show the version before or after. @param {import("./library.js").Node} node @param {number} step */
  async #turn(node, step) {
    const all = versions(this.nodes, node.parent);
    const other = all[all.indexOf(node) + step];
    if (!other) return;
    await this.parts.library.choose(other);
    this.render();
    this.#followOpen();
  }

  // --- scrolling ----------------------------------------------------------------------------------

  toEnd(smooth = false) {
    const { scroller } = this.parts;
    this.#stuck = true;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    scroller.scrollTo({ top: scroller.scrollHeight, behavior: smooth && !still ? "smooth" : "instant" });
    this.#scrolled();
  }

  #stick() {
    const { scroller } = this.parts;
    if (this.#stuck) scroller.scrollTop = scroller.scrollHeight;
    else this.#scrolled();
  }

  #lastTop = 0;

  #scrolled() {
    const { scroller, jump } = this.parts;
    const away = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    // Only the person scrolls up; that the text grew is no reason to let go.
    if (away < NEAR) this.#stuck = true;
    else if (scroller.scrollTop < this.#lastTop - 2) this.#stuck = false;
    this.#lastTop = scroller.scrollTop;
    jump.hidden = this.#stuck || away < NEAR;
  }
}
