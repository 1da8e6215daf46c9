// Server-sent events: text in, events out, as the HTML standard parses them; and whole blocks cut out of
// bytes. No network and no timer in here. Comments are counted, since a heartbeat is a sign of life.

/** One event. `id` is the last id so far; `event` is empty where it has no name. */
export interface SseEvent {
  event: string;
  data: string;
  id: string;
}

/** An event or a line above this many characters is not read. */
export const MAX_BLOCK = 4 * 1024 * 1024;

/** Decodes one body, piece by piece. */
export class SseDecoder {
  /** How many comments came so far. */
  comments = 0;
  /** The reconnection time that the server wishes, in milliseconds. */
  retry: number | undefined;
  lastEventId = "";
  #decoder: TextDecoder | undefined;
  #rest = "";
  #cr = false;
  #bom = true;
  #event = "";
  #data: string[] = [];
  #id = "";
  #held = 0;

  /** Take bytes, or text where somebody else decoded them; give whole events only. */
  feed(piece: Uint8Array | string): SseEvent[] {
    let text = piece as string;
    if (typeof piece !== "string") {
      this.#decoder ??= new TextDecoder("utf-8", { ignoreBOM: true });
      text = this.#decoder.decode(piece, { stream: true });
    }
    if (!text) return [];
    if (this.#bom && text.startsWith("\ufeff")) text = text.slice(1);
    this.#bom = false;
    // CR LF is one line end, also when it comes in two pieces.
    if (this.#cr && text.startsWith("\n")) text = text.slice(1);
    else if (!text) return [];
    this.#cr = text ? text.endsWith("\r") : false;
    if (!/[\r\n]/.test(text)) {
      this.#rest += text;
      this.#bound(this.#rest.length);
      return [];
    }
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    const found: SseEvent[] = [];
    for (const line of lines) {
      if (line === "") this.#dispatch(found);
      else this.#line(line);
    }
    this.#bound(this.#rest.length);
    return found;
  }

  #bound(more: number): void {
    if (this.#held + more > MAX_BLOCK) throw new RangeError(`an event has more than ${MAX_BLOCK} characters`);
  }

  #line(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) {
      this.comments += 1;
      return;
    }
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (name === "data") {
      this.#data.push(value);
      this.#bound((this.#held += value.length));
    } else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Math.min(Number(value), 999_999_999_999_999);
  }

  #dispatch(found: SseEvent[]): void {
    this.lastEventId = this.#id;
    if (this.#data.length) found.push({ event: this.#event, data: this.#data.join("\n"), id: this.#id });
    this.#event = "";
    this.#data = [];
    this.#held = 0;
  }
}

/** Cuts a body into whole blocks, bytes as they came; what is begun stays back. */
export class SseSplitter {
  #rest = new Uint8Array(0);
  #seen = 0;

  /** How many bytes of a block that is not whole are held. */
  get held(): number {
    return this.#rest.length;
  }

  feed(piece: Uint8Array): Uint8Array[] {
    const bytes = new Uint8Array(this.#rest.length + piece.length);
    bytes.set(this.#rest);
    bytes.set(piece, this.#rest.length);
    const blocks: Uint8Array[] = [];
    let start = 0;
    let at = this.#seen;
    for (; at < bytes.length; at += 1) {
      // Two line ends in a row, each LF, CR or CR LF; a CR at the end of what came may be half of one.
      const first = lineEnd(bytes, at);
      if (!first) continue;
      if (at + first >= bytes.length) break;
      const second = lineEnd(bytes, at + first);
      if (!second) {
        at += first - 1;
        continue;
      }
      const end = at + first + second;
      if (bytes[end - 1] === 13 && end >= bytes.length) break;
      blocks.push(bytes.subarray(start, end));
      start = end;
      at = end - 1;
    }
    this.#rest = bytes.slice(start);
    this.#seen = Math.max(0, at - start);
    if (this.#rest.length > MAX_BLOCK) throw new RangeError(`an event has more than ${MAX_BLOCK} bytes`);
    return blocks;
  }
}

function lineEnd(bytes: Uint8Array, at: number): number {
  if (bytes[at] === 10) return 1;
  if (bytes[at] !== 13) return 0;
  return bytes[at + 1] === 10 ? 2 : 1;
}
