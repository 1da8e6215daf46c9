// @ts-check
// Server-sent events: bytes in, events out. As the HTML standard parses them, with one addition:
// comments are told too, since a heartbeat is a sign of life. No network and no timer in here.

/**
 * @typedef {object} SseEvent
 * @property {string} type    `message` when the event has no name
 * @property {string} data
 * @property {string} id      the last id so far
 * @property {number} [retry] milliseconds, when this block said so
 */

/** Decodes one body. */
export class SseDecoder {
  #text = new TextDecoder("utf-8");
  #rest = "";
  #cr = false;
  #type = "";
  /** @type {string[]} */
  #data = [];
  #id = "";
  /** @type {number | undefined} */
  #retry;
  /** How many comments came so far. */
  comments = 0;

  /** @param {Uint8Array} bytes @returns {SseEvent[]} whole events only; what is begun stays */
  feed(bytes) {
    /** @type {SseEvent[]} */
    const found = [];
    let text = this.#text.decode(bytes, { stream: true });
    // CR LF is one line end, also when it comes in two pieces.
    const after = this.#cr && text.startsWith("\n");
    if (text) this.#cr = text.endsWith("\r");
    if (after) text = text.slice(1);
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = this.#line(line);
      if (event) found.push(event);
    }
    return found;
  }

  /** @param {string} line @returns {SseEvent | null} */
  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) {
      this.comments += 1;
      return null;
    }
    const name = colon < 0 ? line : line.slice(0, colon);
    const rest = colon < 0 ? "" : line.slice(colon + 1);
    const value = rest.startsWith(" ") ? rest.slice(1) : rest;
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.#retry = Number(value);
    return null;
  }

  /** @returns {SseEvent | null} */
  #dispatch() {
    const event = { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id, retry: this.#retry };
    const empty = this.#data.length === 0;
    this.#type = "";
    this.#data = [];
    this.#retry = undefined;
    return empty ? null : event;
  }
}
