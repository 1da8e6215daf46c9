// @ts-check
// Where the next question is typed: grows with the text, keeps a draft, sends on Enter, and never while
// an input method is still composing.

import { t } from "./i18n.js";

const MAX_HEIGHT = 0.4;

/** Emits `send` (detail: the text), `stop` and `edit`. */
export class Composer extends EventTarget {
  #busy = false;
  /** @type {string | null} */
  #conversation = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #saving;

  /** @param {HTMLFormElement} form @param {import("./preferences.js").Drafts} drafts */
  constructor(form, drafts) {
    super();
    this.form = form;
    this.drafts = drafts;
    this.area = /** @type {HTMLTextAreaElement} */ (form.querySelector("textarea"));
    this.button = /** @type {HTMLButtonElement} */ (form.querySelector(".send"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#busy) this.dispatchEvent(new Event("stop"));
      else this.#send();
    });
    this.area.addEventListener("keydown", (event) => this.#key(event));
    this.area.addEventListener("input", () => this.#changed());
    addEventListener("resize", () => this.#grow());
    addEventListener("pagehide", () => this.#save());
  }

  get text() {
    return this.area.value;
  }

  set text(text) {
    this.area.value = text;
    this.#changed();
  }

  /** @param {string} conversation */
  show(conversation) {
    this.#save();
    this.#conversation = conversation;
    this.area.value = this.drafts.get(conversation);
    this.#grow();
    this.#state();
  }

  /** A conversation that was new has got its name: the draft goes with it. @param {string} conversation */
  rename(conversation) {
    this.drafts.set(this.#conversation ?? "", "");
    this.#conversation = conversation;
    this.#save();
  }

  /** @param {boolean} busy */
  set busy(busy) {
    this.#busy = busy;
    this.form.classList.toggle("busy", busy);
    this.#state();
  }

  focus() {
    this.area.focus();
  }

  #send() {
    const text = this.area.value.trim();
    if (!text) return;
    this.area.value = "";
    this.#changed();
    this.#save();
    this.dispatchEvent(new CustomEvent("send", { detail: text }));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    // 229: Safari ends the composition before it reports the key that ended it.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      if (!this.#busy) this.#send();
    } else if (event.key === "ArrowUp" && !this.area.value) {
      event.preventDefault();
      this.dispatchEvent(new Event("edit"));
    }
  }

  #changed() {
    this.#grow();
    this.#state();
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.#save(), 300);
  }

  #save() {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    if (this.#conversation !== null) this.drafts.set(this.#conversation, this.area.value);
  }

  #grow() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight, Math.round(innerHeight * MAX_HEIGHT))}px`;
  }

  #state() {
    const label = this.#busy ? t("stop") : t("send");
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    this.button.disabled = !this.#busy && !this.area.value.trim();
  }
}
