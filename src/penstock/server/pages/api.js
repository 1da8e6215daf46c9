// @ts-check
// The gateway as the page sees it: where it is, the API key, and errors in one form.
// Addresses are relative to this file, so the page also works below a prefix.

import { Penstock } from "./client/penstock.js";

const KEY = "penstock.key";
export const BASE = new URL("..", import.meta.url);

/** An answer of the gateway (or of something before it) that is no success. */
export class Refusal extends Error {
  /** @param {number} status @param {any} body @param {number | undefined} retryAfter seconds */
  constructor(status, body, retryAfter) {
    const error = body?.error && typeof body.error === "object" ? body.error : null;
    super(String(error?.message ?? `HTTP ${status}`));
    this.status = status;
    /** Empty when the words are not the gateway's: a proxy's page, say. */
    this.code = String(error?.code ?? "");
    this.fault = String(error?.fault ?? "");
    this.retryable = Boolean(error?.retryable);
    this.retryAfter = retryAfter;
  }
}

/** @param {Response} response */
export async function refusalOf(response) {
  const body = await response.json().catch(() => null);
  const after = Number(response.headers.get("Retry-After") ?? NaN);
  return new Refusal(response.status, body, Number.isFinite(after) ? after : undefined);
}

/** The API key: in memory, for this tab's session, or on this device if the person says so. */
export class Key {
  #value = "";

  constructor() {
    for (const place of ["localStorage", "sessionStorage"]) {
      try {
        this.#value ||= /** @type {any} */ (globalThis)[place].getItem(KEY) ?? "";
      } catch {
        // No storage: the key is asked for again.
      }
    }
  }

  get value() {
    return this.#value;
  }

  /** @param {string} value @param {boolean} remember */
  set(value, remember) {
    this.forget();
    this.#value = value;
    try {
      (remember ? localStorage : sessionStorage).setItem(KEY, value);
    } catch {
      // It lasts as long as the page.
    }
  }

  forget() {
    this.#value = "";
    try {
      localStorage.removeItem(KEY);
      sessionStorage.removeItem(KEY);
    } catch {
      // Nothing was kept.
    }
  }
}

/** Milliseconds that the first delay after a loss is at most. */
const FIRST_DELAY = 1_000;

export class Api {
  /** @type {Penstock | undefined} */
  #client;
  #caller = "";

  /** @param {Key} key @param {(error: Refusal) => Promise<boolean>} askForKey true when there is another one */
  constructor(key, askForKey) {
    this.key = key;
    this.askForKey = askForKey;
  }

  /** @param {string} path */
  url(path) {
    return new URL(path, BASE).href;
  }

  /** What answers are read with: all tabs of the browser have one connection. Another key is another caller. */
  get client() {
    const token = this.key.value;
    if (!this.#client || token !== this.#caller) {
      this.#client = new Penstock({ url: BASE.href, token, transport: "shared", backoff: { first: FIRST_DELAY } });
      this.#caller = token;
    }
    return this.#client;
  }

  /** `fetch` with the key. @param {string} path @param {RequestInit & {headers?: Record<string, string>}} [how] */
  fetch(path, how = {}) {
    /** @type {Record<string, string>} */
    const headers = { ...how.headers };
    if (this.key.value) headers["Authorization"] = `Bearer ${this.key.value}`;
    return fetch(this.url(path), { cache: "no-store", credentials: "same-origin", ...how, headers });
  }

  /** JSON from `path`; asks for a key when one is wanted. Throws `Refusal`. @param {string} path @param {RequestInit & {headers?: Record<string, string>}} [how] */
  async json(path, how) {
    for (;;) {
      const response = await this.fetch(path, how);
      if (response.ok) return response.json();
      const refusal = await refusalOf(response);
      if (refusal.status !== 401 || !(await this.askForKey(refusal))) throw refusal;
    }
  }
}
