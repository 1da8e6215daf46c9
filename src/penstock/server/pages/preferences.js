// @ts-check
// What the person chose, in localStorage: theme, language, model, preset, drafts. All tabs agree.
// Where there is no storage, the choices last as long as the page.

const NAME = "penstock.preferences";
const DRAFTS = "penstock.drafts";
const MAX_DRAFTS = 50;
const MAX_DRAFT = 100_000;

/** Read JSON from localStorage. @param {string} name @param {any} otherwise @returns {any} */
function read(name, otherwise) {
  try {
    const value = JSON.parse(localStorage.getItem(name) ?? "null");
    return value && typeof value === "object" ? value : otherwise;
  } catch {
    return otherwise;
  }
}

/** Write JSON to localStorage; false when it does not take it. @param {string} name @param {any} value */
function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/**
 * @typedef {object} Settings  What is sent along; an absent member is the provider's own default.
 * @property {number} [temperature]
 * @property {number} [top_p]
 * @property {number} [max_tokens]
 * @property {string[]} [stop]
 * @property {number} [seed]
 * @property {string} [system]
 */

/** @typedef {{id: string, name: string, settings: Settings}} Preset */

const DEFAULTS = {
  theme: "",
  language: "",
  model: "",
  preset: "defaults",
  settings: /** @type {Settings} */ ({}),
  presets: /** @type {Preset[]} */ ([]),
  script: /** @type {Record<string, number>} */ ({}),
  lab: false,
};

/** Emits `change` with the name in `detail`, also for what another tab changed. */
export class Preferences extends EventTarget {
  #values = { ...DEFAULTS, ...read(NAME, {}) };

  constructor() {
    super();
    addEventListener("storage", (event) => {
      if (event.key !== NAME) return;
      const before = this.#values;
      this.#values = { ...DEFAULTS, ...read(NAME, {}) };
      for (const name of /** @type {(keyof typeof DEFAULTS)[]} */ (Object.keys(DEFAULTS))) {
        if (JSON.stringify(before[name]) !== JSON.stringify(this.#values[name])) this.#tell(name);
      }
    });
  }

  /** @template {keyof typeof DEFAULTS} K @param {K} name @returns {(typeof DEFAULTS)[K]} */
  get(name) {
    return this.#values[name];
  }

  /** @param {Partial<typeof DEFAULTS>} values */
  set(values) {
    // Another tab may have chosen something else since: only what is set here is set.
    this.#values = { ...DEFAULTS, ...read(NAME, this.#values), ...values };
    write(NAME, this.#values);
    for (const name of Object.keys(values)) this.#tell(name);
  }

  /** @param {string} name */
  #tell(name) {
    this.dispatchEvent(new CustomEvent("change", { detail: name }));
  }
}

/** Texts that were typed and not sent, by conversation. The oldest go first. */
export class Drafts {
  /** For where there is no storage. @type {Record<string, string>} */
  #kept = read(DRAFTS, {});

  /** @param {string} conversation */
  get(conversation) {
    return String(read(DRAFTS, this.#kept)[conversation || "new"] ?? "");
  }

  /** @param {string} conversation @param {string} text */
  set(conversation, text) {
    const drafts = read(DRAFTS, this.#kept);
    delete drafts[conversation || "new"];
    if (text && text.length <= MAX_DRAFT) drafts[conversation || "new"] = text;
    const names = Object.keys(drafts);
    for (const name of names.slice(0, Math.max(0, names.length - MAX_DRAFTS))) delete drafts[name];
    this.#kept = drafts;
    write(DRAFTS, drafts);
  }
}
