// @ts-check
// What can be asked for: the list, in groups, and the dialog to choose from it. A name that nobody
// lists can be typed as well.

import { h } from "./dom.js";
import { t } from "./i18n.js";
import { isDemo } from "./request.js";

/** The embedded models that show how things go wrong. */
export const MISBEHAVING = [
  "demo-slow-start", "demo-stall", "demo-cut", "demo-error", "demo-truncated", "demo-rate-limited",
  "demo-overloaded", "demo-refusal", "demo-empty",
];
const MAX_SHOWN = 300;

/** @typedef {{id: string, owned_by: string, description?: string}} Model */

/** Emits `change`. */
export class Models extends EventTarget {
  /** @type {Model[]} */
  list = [];
  /** @type {"" | "loading" | "failed"} */
  state = "";

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
  }

  async refresh() {
    if (this.state === "loading") return;
    this.state = "loading";
    this.dispatchEvent(new Event("change"));
    try {
      const { data } = await this.api.json("v1/models");
      this.list = data;
      this.state = "";
    } catch {
      this.state = "failed";
    }
    this.dispatchEvent(new Event("change"));
  }

  /** The model to begin with: the first real one, else the demo. */
  get first() {
    return (this.list.find((model) => !isDemo(model.id)) ?? this.list[0])?.id ?? "";
  }
}

/** Real models by provider, then the demo, then what misbehaves. @param {Model[]} models @param {string} wanted */
export function grouped(models, wanted) {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (/** @type {Model} */ model) => {
    const text = `${model.id} ${model.owned_by} ${model.description ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
  /** @type {Map<string, Model[]>} */
  const groups = new Map();
  const put = (/** @type {string} */ name, /** @type {Model} */ model) => groups.set(name, [...(groups.get(name) ?? []), model]);
  const found = models.filter(fits);
  for (const model of found.filter((one) => !isDemo(one.id)).sort((a, b) => a.owned_by.localeCompare(b.owned_by) || a.id.localeCompare(b.id))) put(model.owned_by, model);
  const demos = found.filter((one) => isDemo(one.id)).sort((a, b) => a.id.localeCompare(b.id));
  for (const model of demos) if (!MISBEHAVING.includes(model.id)) put(t("group_demo"), model);
  for (const model of demos) if (MISBEHAVING.includes(model.id)) put(t("group_misbehaving"), model);
  return groups;
}

/** The dialog: a search box over a list. */
export class ModelPicker {
  #at = -1;

  /** @param {HTMLDialogElement} dialog @param {Models} models @param {(model: string) => void} choose */
  constructor(dialog, models, choose) {
    this.dialog = dialog;
    this.models = models;
    this.choose = choose;
    this.current = "";
    this.input = h("input", { type: "text", role: "combobox", "aria-expanded": "true", "aria-controls": "model-list", "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false" });
    this.listbox = h("div", { id: "model-list", role: "listbox", class: "models", tabindex: -1 });
    this.note = h("p", { class: "note", role: "status" });
    this.input.addEventListener("input", () => this.#draw());
    this.input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event));
    models.addEventListener("change", () => dialog.open && this.#draw());
    dialog.querySelector(".content")?.append(this.input, this.note, this.listbox);
  }

  /** @param {string} current */
  open(current) {
    this.current = current;
    this.input.value = "";
    this.input.placeholder = t("model_search");
    this.input.setAttribute("aria-label", t("model_search"));
    this.listbox.setAttribute("aria-label", t("models"));
    void this.models.refresh();
    this.#draw();
    this.dialog.showModal();
    this.input.focus();
    this.listbox.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
  }

  #draw() {
    const wanted = this.input.value.trim();
    const groups = grouped(this.models.list, wanted);
    const known = this.models.list.some((model) => model.id === wanted);
    const rows = [];
    let shown = 0;
    for (const [name, models] of groups) {
      const heading = h("div", { role: "presentation", class: "heading", text: name });
      const group = h("div", { role: "group", "aria-label": name }, heading);
      for (const model of models.slice(0, Math.max(0, MAX_SHOWN - shown))) group.append(this.#option(model.id, model.description ?? ""));
      shown += models.length;
      rows.push(group);
    }
    if (wanted && !known) rows.push(h("div", { role: "group", "aria-label": t("model_other") }, this.#option(wanted, t("model_typed"))));
    this.listbox.replaceChildren(...rows);
    this.note.textContent = this.models.state === "failed" ? t("models_failed") : shown > MAX_SHOWN ? t("models_more", { count: shown - MAX_SHOWN }) : "";
    this.note.hidden = !this.note.textContent;
    const options = this.#options();
    this.#go(wanted ? 0 : options.findIndex((option) => option.dataset.model === this.current));
  }

  /** @param {string} id @param {string} about */
  #option(id, about) {
    const option = h("div", { role: "option", id: `model-${id.replace(/[^\w-]/g, "_")}-${about.length}`, "data-model": id, "aria-selected": String(id === this.current) },
      h("span", { class: "id", text: id }), about ? h("span", { class: "about", text: about }) : null);
    option.addEventListener("click", () => this.#take(id));
    return option;
  }

  /** @returns {HTMLElement[]} */
  #options() {
    return [...this.listbox.querySelectorAll("[role=option]")];
  }

  /** @param {number} at */
  #go(at) {
    const options = this.#options();
    this.#at = options.length ? Math.max(-1, Math.min(at, options.length - 1)) : -1;
    options.forEach((option, index) => option.classList.toggle("at", index === this.#at));
    const option = options[this.#at];
    if (option) {
      this.input.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.isComposing || event.keyCode === 229) return;
    const last = this.#options().length - 1;
    const to = { ArrowDown: this.#at >= last ? 0 : this.#at + 1, ArrowUp: this.#at <= 0 ? last : this.#at - 1, PageDown: this.#at + 8, PageUp: Math.max(0, this.#at - 8) }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.#go(to);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const option = this.#options()[this.#at];
      if (option) this.#take(/** @type {string} */ (option.dataset.model));
    }
  }

  /** @param {string} model */
  #take(model) {
    this.dialog.close();
    this.choose(model);
  }
}
