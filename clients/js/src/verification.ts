// Checking what a reader was given: order, completeness and digests of one stream. Sibling of
// src/penstock/wire/verification.py. A reader that did not begin at the start can check its order.

import type { End, Entry } from "./events.js";
import { Sha256 } from "./sha256.js";

export class Verifier {
  #digest: Sha256 | undefined;
  #text: Sha256 | undefined;
  #ended = false;

  /** Stand behind entry `n`. */
  constructor(public n = 0) {
    if (n === 0) {
      this.#digest = new Sha256();
      this.#text = new Sha256();
    }
  }

  /** Take an entry and its record. `repeated` was there before; `missing`: one before it did not come. */
  feed(entry: Entry, record: string): "next" | "repeated" | "missing" {
    if (entry.n <= this.n) return "repeated";
    if (entry.n !== this.n + 1 || this.#ended) return "missing";
    this.n = entry.n;
    if (entry.type === "end") {
      this.#ended = true;
      return "next";
    }
    this.#digest?.text(record).text("\n");
    if (entry.type === "text" && !entry["index"]) this.#text?.text(entry.delta as string);
    return "next";
  }

  /** What is wrong with the whole, now that its end is there; empty when nothing is. */
  problem(end: End): string {
    if ((end.entries ?? 0) !== end.n - 1) return `the end tells of ${end.entries} entries, ${end.n - 1} came`;
    if (!this.#digest || !this.#text) return "";
    if (this.#digest.hex() !== end.sha256) return "the entries are not those that were stored (sha256 differs)";
    if (this.#text.hex() !== end.text_sha256) return "the text is not the one that was stored (text_sha256 differs)";
    return "";
  }

  /** Whether all of the stream was seen, from its start. */
  get whole(): boolean {
    return this.#digest !== undefined && this.#ended;
  }
}
