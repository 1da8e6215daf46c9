// @ts-check
// Sampling settings: a few that are given, and the person's own. What is sent is `settings`; a preset
// is a name for a set of them. An empty field sends nothing: the provider's default holds.

import { h } from "./dom.js";
import { t } from "./i18n.js";
import { newId } from "./library.js";

const MAX_PRESETS = 50;
const MAX_STOPS = 16;

/** @typedef {import("./preferences.js").Preset} Preset */

/** @returns {Preset[]} */
export function givenPresets() {
  return [
    { id: "defaults", name: t("preset_defaults"), settings: {} },
    { id: "balanced", name: t("preset_balanced"), settings: { temperature: 0.7 } },
    { id: "precise", name: t("preset_precise"), settings: { temperature: 0.2 } },
    { id: "creative", name: t("preset_creative"), settings: { temperature: 1.1, top_p: 0.95 } },
  ];
}

const FIELDS = /** @type {const} */ ([
  ["temperature", { type: "number", min: 0, max: 2, step: "any", inputmode: "decimal" }],
  ["top_p", { type: "number", min: 0, max: 1, step: "any", inputmode: "decimal" }],
  ["max_tokens", { type: "number", min: 1, max: 10_000_000, step: 1, inputmode: "numeric" }],
  ["seed", { type: "number", min: -9007199254740991, max: 9007199254740991, step: 1, inputmode: "numeric" }],
]);
const SCRIPT_FIELDS = /** @type {const} */ ([
  ["tokens_per_second", { type: "number", min: 1, max: 100000, step: "any", inputmode: "decimal" }],
  ["first_token_delay", { type: "number", min: 0, max: 3600, step: "any", inputmode: "decimal" }],
  ["tokens", { type: "number", min: 0, max: 100000, step: 1, inputmode: "numeric" }],
]);

export class PresetsDialog {
  /** @param {HTMLDialogElement} dialog @param {import("./preferences.js").Preferences} preferences */
  constructor(dialog, preferences) {
    this.dialog = dialog;
    this.preferences = preferences;
    this.content = /** @type {HTMLElement} */ (dialog.querySelector(".content"));
  }

  /** The name of what is in force, with a mark when it was changed. */
  get name() {
    const preset = this.#preset();
    const changed = JSON.stringify(tidy(preset.settings)) !== JSON.stringify(tidy(this.preferences.get("settings")));
    return changed ? `${preset.name}*` : preset.name;
  }

  open() {
    this.#draw();
    this.dialog.showModal();
  }

  /** @returns {Preset[]} */
  #all() {
    return [...givenPresets(), ...this.preferences.get("presets")];
  }

  #preset() {
    return this.#all().find((preset) => preset.id === this.preferences.get("preset")) ?? givenPresets()[0];
  }

  #draw() {
    const current = this.#preset();
    const own = this.preferences.get("presets").some((preset) => preset.id === current.id);
    const settings = this.preferences.get("settings");
    const radios = this.#all().map((preset) =>
      h("label", { class: "choice" },
        h("input", { type: "radio", name: "preset", value: preset.id, checked: preset.id === current.id, onchange: () => this.#take(preset) }),
        h("span", { text: preset.name })));
    const numbers = FIELDS.map(([name, props]) => field(name, h("input", { ...props, id: `set-${name}`, value: settings[name] ?? "", placeholder: t("provider_default"), oninput: () => this.#read() })));
    const stop = h("textarea", { id: "set-stop", rows: 2, oninput: () => this.#read() });
    stop.value = (settings.stop ?? []).join("\n");
    const system = h("textarea", { id: "set-system", rows: 4, oninput: () => this.#read() });
    system.value = settings.system ?? "";
    const script = this.preferences.get("script");
    const played = SCRIPT_FIELDS.map(([name, props]) => field(name, h("input", { ...props, id: `script-${name}`, value: script[name] ?? "", placeholder: t("model_default"), oninput: () => this.#readScript() })));
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.content.replaceChildren(
      h("fieldset", { class: "choices" }, h("legend", { text: t("presets") }), ...radios),
      h("div", { class: "fields" }, ...numbers),
      field("system", system),
      field("stop", stop, t("stop_hint")),
      this.problem,
      this.#buttons(current, own),
      h("details", { class: "more", open: Object.keys(script).length > 0 }, h("summary", { text: t("script_settings") }), h("p", { class: "hint", text: t("script_hint") }), h("div", { class: "fields" }, ...played)),
    );
  }

  /** @param {Preset} current @param {boolean} own */
  #buttons(current, own) {
    const row = h("div", { class: "buttons" });
    const name = h("input", { type: "text", class: "name", maxlength: 60, "aria-label": t("preset_name"), placeholder: t("preset_name"), value: own ? current.name : "" });
    row.append(name, h("button", { type: "button", class: "button", text: t("save_as_new"), onclick: () => this.#save(name, "") }));
    if (own) {
      row.append(
        h("button", { type: "button", class: "button", text: t("save_changes"), onclick: () => this.#save(name, current.id) }),
        h("button", { type: "button", class: "button danger", text: t("delete"), onclick: () => this.#remove(current) }),
      );
    }
    return row;
  }

  /** @param {Preset} preset */
  #take(preset) {
    this.preferences.set({ preset: preset.id, settings: { ...preset.settings } });
    this.#draw();
    /** @type {HTMLElement | null} */ (this.content.querySelector("input[name=preset]:checked"))?.focus();
  }

  #read() {
    const get = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (this.content.querySelector(`#${id}`));
    /** @type {any} */
    const settings = {};
    const wrong = [];
    for (const [name] of FIELDS) {
      const input = get(`set-${name}`);
      if (!input.checkValidity()) wrong.push(`${t(/** @type {any} */ (`set_${name}`))}: ${input.validationMessage}`);
      else if (input.value !== "") settings[name] = Number(input.value);
    }
    const stops = get("set-stop").value.split("\n").filter((line) => line !== "");
    if (stops.length) settings.stop = stops.slice(0, MAX_STOPS);
    if (get("set-system").value.trim()) settings.system = get("set-system").value;
    this.#problem(wrong);
    this.preferences.set({ settings });
  }

  #readScript() {
    /** @type {Record<string, number>} */
    const script = {};
    const wrong = [];
    for (const [name] of SCRIPT_FIELDS) {
      const input = /** @type {HTMLInputElement} */ (this.content.querySelector(`#script-${name}`));
      if (!input.checkValidity()) wrong.push(`${t(/** @type {any} */ (`set_${name}`))}: ${input.validationMessage}`);
      else if (input.value !== "") script[name] = Number(input.value);
    }
    this.#problem(wrong);
    this.preferences.set({ script });
  }

  /** @param {string[]} wrong */
  #problem(wrong) {
    this.problem.textContent = wrong.join(" ");
    this.problem.hidden = !wrong.length;
  }

  /** @param {HTMLInputElement} input @param {string} id */
  #save(input, id) {
    const name = input.value.trim();
    if (!name) {
      input.focus();
      this.#problem([t("preset_needs_name")]);
      return;
    }
    const presets = this.preferences.get("presets");
    if (!id && presets.length >= MAX_PRESETS) {
      this.#problem([t("presets_full")]);
      return;
    }
    const preset = { id: id || newId(), name, settings: { ...this.preferences.get("settings") } };
    const others = presets.filter((one) => one.id !== id);
    this.preferences.set({ presets: [...others, preset], preset: preset.id });
    this.#draw();
  }

  /** @param {Preset} preset */
  #remove(preset) {
    this.preferences.set({ presets: this.preferences.get("presets").filter((one) => one.id !== preset.id), preset: "defaults", settings: {} });
    this.#draw();
  }
}

/** @param {string} name @param {HTMLElement} input @param {string} [hint] */
function field(name, input, hint = "") {
  const about = hint ? h("span", { class: "hint", id: `${input.id}-hint`, text: hint }) : null;
  if (about) input.setAttribute("aria-describedby", about.id);
  return h("div", { class: "field" }, h("label", { for: input.id, text: t(/** @type {any} */ (`set_${name}`)) }), input, about);
}

/** @param {Record<string, any>} settings */
function tidy(settings) {
  return Object.entries(settings).sort(([a], [b]) => a.localeCompare(b));
}
