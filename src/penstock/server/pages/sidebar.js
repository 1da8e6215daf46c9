// @ts-check
// The list of conversations, newest first, in groups by day; on a phone it is a drawer.

import { h, icon, openMenu } from "./dom.js";
import { t } from "./i18n.js";

const MAX_SHOWN = 500;

/** Emits `rename`, `remove`, `markdown` and `json` with the conversation's id. */
export class Sidebar extends EventTarget {
  /** @param {HTMLElement} list @param {import("./library.js").Library} library */
  constructor(list, library) {
    super();
    this.list = list;
    this.library = library;
    this.current = "";
    library.addEventListener("list", () => this.draw());
  }

  /** @param {string} id */
  select(id) {
    this.current = id;
    this.draw();
  }

  draw() {
    /** @type {Map<string, HTMLElement[]>} */
    const days = new Map();
    for (const conversation of this.library.list().slice(0, MAX_SHOWN)) {
      const day = dayOf(conversation.updated);
      days.set(day, [...(days.get(day) ?? []), this.#item(conversation)]);
    }
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.closest("[data-conversation]")?.getAttribute("data-conversation");
    const groups = [...days].map(([day, items]) => h("section", {}, h("h2", { text: day }), h("ul", {}, ...items)));
    this.list.replaceChildren(...(groups.length ? groups : [h("p", { class: "hint", text: t("no_conversations") })]));
    if (focused) /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-conversation="${focused}"] a`))?.focus();
  }

  /** @param {import("./library.js").Conversation} conversation */
  #item({ id, title }) {
    const name = title || t("untitled");
    const more = h("button", { type: "button", class: "icon-button small", "aria-label": t("more_about", { title: name }), "aria-haspopup": "menu" }, icon("more"));
    const emit = (/** @type {string} */ what) => () => this.dispatchEvent(new CustomEvent(what, { detail: id }));
    more.addEventListener("click", () => openMenu(more, [
      { label: t("rename"), shape: "edit", run: emit("rename") },
      { label: t("export_markdown"), shape: "download", run: emit("markdown") },
      { label: t("export_json"), shape: "download", run: emit("json") },
      { label: t("delete"), shape: "trash", danger: true, run: emit("remove") },
    ]));
    return h("li", { "data-conversation": id, class: id === this.current ? "current" : "" },
      h("a", { href: `#/c/${id}`, text: name, title: name, "aria-current": id === this.current ? "page" : null }), more);
  }
}

/** @param {number} when */
function dayOf(when) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (when >= midnight) return t("today");
  if (when >= midnight - 86_400_000) return t("yesterday");
  if (when >= midnight - 7 * 86_400_000) return t("this_week");
  return t("earlier");
}
