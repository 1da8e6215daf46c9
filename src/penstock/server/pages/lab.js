// @ts-check
// The lab: cut the connection of an answer for real, and models that misbehave, to see how endings look.

import { byId, h, icon, openMenu } from "./dom.js";
import { t } from "./i18n.js";
import { MISBEHAVING } from "./models.js";

/** How long a connection that was cut on purpose stays away. */
export const CUT_FOR = 2_000;

/** Emits `cut` and `misbehave` (detail: the model). */
export class Lab extends EventTarget {
  /** @param {import("./models.js").Models} models */
  constructor(models) {
    super();
    this.panel = byId("lab");
    this.models = models;
    models.addEventListener("change", () => this.draw());
  }

  /** @param {boolean} on */
  show(on) {
    this.panel.hidden = !on;
    document.body.classList.toggle("lab-open", on);
    if (on) this.draw();
  }

  /** @param {boolean} reading whether there is a connection that can be cut */
  set reading(reading) {
    if (this.cut) this.cut.disabled = !reading;
    this.wasReading = reading;
  }

  draw() {
    if (this.panel.hidden) return;
    const listed = this.models.list.filter((model) => MISBEHAVING.includes(model.id));
    this.cut = h("button", { type: "button", id: "cut", class: "button", onclick: () => this.dispatchEvent(new Event("cut")) }, icon("cut"), h("span", { text: t("cut") }));
    this.cut.disabled = !this.wasReading;
    const misbehave = h("button", { type: "button", id: "misbehave", class: "button", "aria-haspopup": "menu", onclick: () => openMenu(misbehave, listed.map((model) => ({
      label: model.id,
      about: model.description,
      run: () => this.dispatchEvent(new CustomEvent("misbehave", { detail: model.id })),
    }))) }, icon("warning"), h("span", { text: t("misbehave") }), icon("chevron"));
    misbehave.disabled = !listed.length;
    const legend = /** @type {const} */ (["text", "reasoning", "tool", "cut", "caught", "heartbeat"]);
    this.panel.replaceChildren(
      h("div", { class: "buttons" }, this.cut, misbehave),
      h("ul", { class: "legend", "aria-label": t("legend") }, ...legend.map((name) => h("li", {}, h("i", { class: `swatch ${name}` }), t(/** @type {any} */ (`legend_${name}`))))),
    );
    this.panel.setAttribute("aria-label", t("lab"));
  }
}
