// @ts-check
// Small dialogs: the API key, a name, a question with two answers, the keys. And notices.

import { byId, h, iconButton } from "./dom.js";
import { t } from "./i18n.js";

/** Build a dialog's frame: a title, a button that closes it, and room. @param {string} id @param {string} title @returns {any} */
export function frame(id, title) {
  const dialog = byId(id);
  dialog.setAttribute("aria-labelledby", `${id}-title`);
  dialog.replaceChildren(
    h("header", {}, h("h2", { id: `${id}-title`, text: title }), iconButton("close", t("close"), () => dialog.close())),
    h("div", { class: "content" }),
  );
  if (!dialog.dataset.ready) {
    dialog.dataset.ready = "true";
    // A click beside it closes it, as people expect; one that began inside (selecting text) does not.
    let began = false;
    dialog.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => (began = event.target === dialog));
    dialog.addEventListener("click", (/** @type {MouseEvent} */ event) => began && event.target === dialog && dialog.close());
  }
  return dialog;
}

/** Ask for an API key. Resolves to it, or to null. @param {string} why @returns {Promise<{key: string, remember: boolean} | null>} */
export function askForKey(why) {
  const dialog = frame("key-dialog", t("key_title"));
  const input = h("input", { id: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "key-why" });
  const remember = h("input", { id: "remember", type: "checkbox" });
  return new Promise((resolve) => {
    /** @type {{key: string, remember: boolean} | null} */
    let given = null;
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (!key) return;
      given = { key, remember: remember.checked };
      dialog.close();
    };
    dialog.querySelector(".content").append(h("form", { onsubmit: submit },
      h("p", { id: "key-why", text: why }),
      h("div", { class: "field" }, h("label", { for: "key", text: t("key") }), input),
      h("label", { class: "check" }, remember, h("span", { text: t("key_remember") })),
      h("p", { class: "hint", text: t("key_where") }),
      h("div", { class: "buttons" }, h("button", { class: "button primary", text: t("key_use") }), h("button", { type: "button", class: "button", text: t("cancel"), onclick: () => dialog.close() }))));
    dialog.addEventListener("close", () => resolve(given), { once: true });
    if (!dialog.open) dialog.showModal();
    input.focus();
  });
}

/** Ask for a text. @param {string} title @param {string} label @param {string} value @returns {Promise<string | null>} */
export function askForText(title, label, value) {
  const dialog = frame("small-dialog", title);
  const input = h("input", { id: "small-text", type: "text", value, maxlength: 200, required: true });
  return new Promise((resolve) => {
    /** @type {string | null} */
    let given = null;
    dialog.querySelector(".content").append(h("form", { onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      given = input.value.trim() || null;
      dialog.close();
    } }, h("div", { class: "field" }, h("label", { for: "small-text", text: label }), input),
    h("div", { class: "buttons" }, h("button", { class: "button primary", text: t("save") }), h("button", { type: "button", class: "button", text: t("cancel"), onclick: () => dialog.close() }))));
    dialog.addEventListener("close", () => resolve(given), { once: true });
    dialog.showModal();
    input.select();
  });
}

/** Ask yes or no. @param {string} title @param {string} text @param {string} yes @returns {Promise<boolean>} */
export function confirmed(title, text, yes) {
  const dialog = frame("small-dialog", title);
  return new Promise((resolve) => {
    let said = false;
    dialog.querySelector(".content").append(h("p", { text }), h("div", { class: "buttons" },
      h("button", { type: "button", class: "button danger", text: yes, onclick: () => {
        said = true;
        dialog.close();
      } }),
      h("button", { type: "button", class: "button", autofocus: true, text: t("cancel"), onclick: () => dialog.close() })));
    dialog.addEventListener("close", () => resolve(said), { once: true });
    dialog.showModal();
  });
}

export function showKeys() {
  const dialog = frame("small-dialog", t("keys"));
  const mac = /Mac|iPhone|iPad/.test(navigator.platform);
  const command = mac ? "⌘" : "Ctrl";
  const rows = /** @type {[string[], string][]} */ ([
    [["Enter"], t("keys_send")],
    [["Shift", "Enter"], t("keys_line")],
    [["Esc"], t("keys_stop")],
    [["↑"], t("keys_edit")],
    [[command, "K"], t("keys_new")],
    [[command, "M"], t("keys_model")],
    [["/"], t("keys_focus")],
    [["?"], t("keys_help")],
  ]);
  dialog.querySelector(".content").append(h("dl", { class: "keys" }, ...rows.flatMap(([keys, about]) => [
    h("dt", {}, ...keys.map((key) => h("kbd", { text: key }))), h("dd", { text: about }),
  ])));
  dialog.showModal();
}

/** Say something for a few seconds. @param {string} text @param {{stay?: boolean}} [how] */
export function notice(text, { stay = false } = {}) {
  const place = byId("notices");
  const element = h("div", { class: "notice" }, h("span", { text }), iconButton("close", t("close"), () => element.remove(), { class: "small" }));
  place.append(element);
  while (place.childElementCount > 3) place.firstElementChild.remove();
  if (!stay) setTimeout(() => element.remove(), 5_000);
}
