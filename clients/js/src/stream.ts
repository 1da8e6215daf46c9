// One answer followed to its end, whatever happens to the connection.
//
// It is asked for once: a request that is repeated because its response was lost carries the same key and
// finds the answer that is there. From its first entry on it is a log that is read from a cursor: after any
// loss the reader goes on behind the last entry it has. It gives up only when the gateway says that there is
// nothing left to wait for, or where `attempts` says so.

import type { Api } from "./api.js";
import { type Backoff, type Clock, delayOf, pause } from "./backoff.js";
import { Lost, MOST_AFTER, PenstockError } from "./errors.js";
import type { End, Entry } from "./events.js";
import type { Ask, Creation, Sink, Transport } from "./transport.js";
import { Verifier } from "./verification.js";

/** Milliseconds of total silence that count as a lost connection; heartbeats come every 15 s. */
export const SILENCE = 45_000;
/** Entries that wait for whoever iterates; beyond them the connection is not read. */
export const MAX_WAITING = 1024;

/** All that was read is void and comes again: the gateway lost the tail of its log. */
export interface Restarted {
  n: 0;
  type: "restarted";
}

export interface Result {
  text: string;
  end: End;
  stream: string;
  cursor: string;
}

export interface Retry {
  attempt: number;
  /** Milliseconds until it is made. */
  delay: number;
  reason: string;
}

export type Phase = "connecting" | "open" | "waiting" | "closed";

export interface Settings {
  api: Api;
  transport: Transport;
  clock: Clock;
  backoff: Backoff;
  silence: number;
}

const VOID = new Set(["log_lost", "cursor_ahead", "invalid_cursor", "cursor_mismatch"]);

class ReadAgain extends Error {}

export class Stream implements AsyncIterable<Entry | Restarted> {
  /** A connection is there; called again after each loss. */
  onopen: ((stream: string) => void) | null = null;
  onmessage: ((entry: Entry | Restarted) => void) | null = null;
  /** It is over; `end` is undefined where the end did not come. */
  onclose: ((end: End | undefined) => void) | null = null;
  /** It is over and the answer is not whole. */
  onerror: ((error: PenstockError) => void) | null = null;
  /** The gateway says that it is there, and nothing else. */
  onheartbeat: (() => void) | null = null;
  /** A connection was lost. */
  onretry: ((retry: Retry) => void) | null = null;

  phase: Phase = "connecting";
  id: string;
  /** Behind the last entry that was handed out: `read` goes on there. */
  cursor: string;
  /** The text of choice 0 that has come so far. */
  text = "";
  end: End | undefined;
  error: PenstockError | undefined;
  /** How many connections were lost. */
  losses = 0;
  /** Entries that there were when the connection was made: those up to it are not new. */
  tail = 0;

  #verifier: Verifier;
  #settings: Settings;
  #creation: Creation | undefined;
  #life = new AbortController();
  #connection = new AbortController();
  #waiting: [Entry | Restarted, string][] = [];
  #last: string;
  #nothing = false;
  #flowing = false;
  #wake: () => void = () => {};
  #drained: () => void = () => {};
  #nap = new AbortController();
  /** Whether the gateway said how long to wait. */
  #asked = false;
  #unsure = false;
  #attempt = 0;
  #rereads = 0;
  #most = 0;
  #silence: number;
  #over: Promise<void>;

  constructor(settings: Settings, what: { creation?: Creation; stream?: string; cursor?: string }, signal?: AbortSignal) {
    this.#settings = settings;
    this.#creation = what.creation;
    this.#silence = settings.silence;
    this.id = what.stream ?? "";
    this.cursor = this.#last = what.cursor ?? "";
    const at = /~[0-9]{4}([0-9]{12})$/.exec(this.cursor);
    this.#verifier = new Verifier(at ? Number(at[1]) : 0);
    const aborted = () => {
      const error = new PenstockError("aborted", "the reader was aborted");
      error.cause = signal?.reason;
      this.#finish(error);
    };
    if (signal?.aborted) queueMicrotask(aborted);
    signal?.addEventListener("abort", aborted);
    // Handlers are set in the turn in which the stream is made.
    this.#over = Promise.resolve()
      .then(() => this.#run())
      .finally(() => signal?.removeEventListener("abort", aborted));
  }

  /** Whether order, completeness and digests were checked from the first entry to the end. */
  get verified(): boolean {
    return this.#verifier.whole && this.error?.code !== "unverified";
  }

  /** The whole answer; rejects where there is none. A stopped one counts: `end.status` tells. */
  async result(): Promise<Result> {
    this.#flowing = true;
    this.#waiting = [];
    this.cursor = this.#last;
    this.#drained();
    await this.#over;
    if (this.error) throw this.error;
    if (this.#nothing) throw new PenstockError("nothing", "the stream ended before this cursor: nothing follows");
    if (!this.end) throw new PenstockError("aborted", "the reader was closed before the end");
    return { text: this.text, end: this.end, stream: this.id, cursor: this.cursor };
  }

  /** Every entry, once, in order. Throws after the last one where the answer failed. Leaving the loop closes
   * the stream; the answer goes on. Two loops over one stream share its entries. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Entry | Restarted, void, undefined> {
    this.#flowing = false;
    try {
      for (;;) {
        while (this.#waiting.length) {
          const [entry, cursor] = this.#waiting.shift()!;
          this.cursor = cursor;
          if (this.#waiting.length < MAX_WAITING / 2) this.#drained();
          yield entry;
        }
        if (this.phase === "closed") break;
        const others = this.#wake;
        await new Promise<void>((resolve) => (this.#wake = () => (others(), resolve())));
      }
    } finally {
      this.close(); // no-op at the end; where the loop was left, nobody reads on
    }
    if (this.error) throw this.error;
  }

  /** The pieces of the text alone. */
  async *texts(): AsyncGenerator<string, void, undefined> {
    for await (const entry of this) if (entry.type === "text" && !entry["index"]) yield entry.delta as string;
  }

  /** Stop reading; the answer goes on without us. */
  close(): void {
    if (this.phase !== "closed") this.#finish();
  }

  /** Make the next attempt now, whatever was to be waited for. */
  retryNow(): void {
    this.#nap.abort();
  }

  /** Stop the model. The end comes as an entry, as every end does. */
  async stop(): Promise<void> {
    const { api, clock } = this.#settings;
    for (let attempt = 1; this.phase !== "closed"; attempt += 1) {
      const key = this.#creation?.key;
      try {
        if (this.id) await api.request(`v1/streams/${this.id}/cancel`, { method: "POST" });
        else await api.request("v1/streams/cancel", { method: "POST", headers: { "Idempotency-Key": key! } });
        this.retryNow();
        return;
      } catch (error) {
        const refused = error instanceof PenstockError && error.status < 500 && error.status !== 429;
        // Nothing was started under the key yet: its request may still be on its way, or none is.
        if (refused && !this.id && error.status === 404 && this.phase === "waiting") {
          return this.#finish(new PenstockError("cancelled", "it was stopped before it was started"));
        }
        if (refused && (this.id || error.status !== 404)) throw error;
      }
      await pause(clock, Math.min(5_000, 250 * attempt), this.#life.signal);
    }
  }

  // --- one connection after another ---------------------------------------------------------------

  async #run(): Promise<void> {
    // The network is back, or somebody looks; but who asked to be left alone is left alone.
    const back = () => {
      if (!this.#asked && globalThis.document?.visibilityState !== "hidden") this.retryNow();
    };
    const { document } = globalThis;
    globalThis.addEventListener?.("online", back);
    document?.addEventListener?.("visibilitychange", back);
    try {
      while (this.phase !== "closed") await this.#connect();
    } finally {
      globalThis.removeEventListener?.("online", back);
      document?.removeEventListener?.("visibilitychange", back);
    }
  }

  async #connect(): Promise<void> {
    const { transport, clock } = this.#settings;
    const connection = (this.#connection = new AbortController());
    this.phase = "connecting";
    const ask: Ask = { creation: this.#creation, stream: this.id, cursor: this.#last };
    let silent = false;
    let unwatch = () => {};
    const heard = (only = false) => {
      unwatch();
      if (connection.signal.aborted) return;
      unwatch = clock.after(this.#silence, () => {
        silent = true;
        connection.abort();
      });
      if (only) told(this.onheartbeat, undefined);
    };
    // Whoever ended the connection waits for nothing more of it: a timer would keep a program running.
    connection.signal.addEventListener("abort", () => unwatch());
    const guard = <A extends unknown[]>(call: (...args: A) => void) => (...args: A) => {
      if (this.#connection === connection && !connection.signal.aborted) call(...args);
    };
    const sink: Sink = {
      heard,
      opened: guard((stream, tail = 0, heartbeat = 0) => {
        // Of a gateway that is seldom heard silence means less.
        this.#silence = Math.max(this.#settings.silence, heartbeat * 3000);
        heard();
        this.#opened(stream, tail);
      }),
      entry: guard((record, cursor) => this.#entry(record, cursor)),
      failed: guard((code, message, retryable) => {
        throw new PenstockError(code, message, 0, retryable);
      }),
      ready: () => {
        const ready = this.#ready(connection.signal);
        if (ready) {
          unwatch(); // silence means nothing while nobody listens
          void ready.then(() => connection.signal.aborted || heard());
        }
        return ready;
      },
    };
    heard();
    try {
      const outcome = await transport.carry(ask, sink, connection.signal);
      if (this.#closed()) return;
      if (outcome === "again") return;
      // The log ends at our cursor, so we must have had its end; if not, our copy is not to be trusted.
      if (outcome === "nothing") {
        if (this.#creation || ask.cursor === "" || this.#rereads) throw new ReadAgain();
        this.#nothing = true;
        this.#finish();
        return;
      }
      throw new Lost("ended");
    } catch (error) {
      if (this.#closed()) return;
      await this.#lost(silent ? new Lost("silent") : error);
    } finally {
      unwatch();
      connection.abort();
    }
  }

  async #lost(error: unknown): Promise<void> {
    const { clock, backoff } = this.#settings;
    const creating = !this.id;
    if (error instanceof ReadAgain || (error instanceof PenstockError && !creating && VOID.has(error.code))) {
      if (++this.#rereads > 2) this.#finish(new PenstockError("log_lost", "the stream cannot be read"));
      else this.#restart();
      return;
    }
    let reason = "network";
    let after = 0;
    if (error instanceof PenstockError) {
      const { code, status } = error;
      // A page of a proxy is no word of the gateway's.
      const foreign = !code && (status >= 500 || status === 404 || status === 429);
      const busy = status === 408 || status === 429 || status >= 500 || error.retryable || code === "idempotency_key_in_use";
      // Nothing was started, and the caller decides; unless an earlier request may have arrived.
      const known = creating && !this.#unsure && code !== "idempotency_key_in_use" && status !== 408;
      if (!foreign && (!busy || known || code === "log_damaged")) return this.#finish(error);
      [reason, after] = [foreign ? "proxy" : code || "busy", error.retryAfter];
    } else if (error instanceof Lost) [reason, after] = [error.reason, error.after];
    else if (error instanceof RangeError || error instanceof SyntaxError) reason = "malformed";
    if (creating) this.#unsure = true;
    this.losses += 1;
    const attempt = (this.#attempt += 1);
    if (attempt > backoff.attempts) {
      const message = `the gateway could not be reached in ${attempt} attempts (${reason})`;
      return this.#finish(new PenstockError("unreachable", message, 0, true));
    }
    const delay = Math.max(delayOf(backoff, attempt, clock.random), Math.min(after, MOST_AFTER) * 1000);
    this.#asked = after > 0;
    this.phase = "waiting";
    told(this.onretry, { attempt, delay, reason });
    if (this.#closed()) return;
    this.#nap = new AbortController();
    await pause(clock, delay, this.#nap.signal);
  }

  #opened(stream: string, tail: number): void {
    this.id = stream;
    this.tail = tail;
    this.phase = "open";
    told(this.onopen, stream);
  }

  #entry(record: string, cursor: string): void {
    const entry = JSON.parse(record) as Entry;
    const came = this.#verifier.feed(entry, record);
    if (came === "repeated") return;
    if (came === "missing") throw new Lost("missing");
    this.#attempt = 0;
    if (entry.n > this.#most) {
      this.#most = entry.n;
      this.#rereads = 0;
    }
    this.#last = cursor;
    if (entry.type === "text" && !entry["index"]) this.text += entry.delta as string;
    if (entry.type !== "end") return this.#give(entry);
    const end = (this.end = entry as End);
    this.#give(entry);
    const problem = this.#verifier.problem(end);
    if (problem) this.#finish(new PenstockError("unverified", problem));
    else if (end.status === "completed" || end.status === "cancelled") this.#finish();
    else this.#finish(new PenstockError(end.code ?? end.status, end.message ?? `the answer ${end.status}`, 0, end.retryable, end.retry_after));
  }

  #restart(): void {
    this.#verifier = new Verifier();
    this.#last = this.text = "";
    this.#give({ n: 0, type: "restarted" });
  }

  #give(entry: Entry | Restarted): void {
    const queued = !this.#flowing && !this.onmessage;
    if (!queued) this.cursor = this.#last;
    told(this.onmessage, entry);
    if (!queued) return;
    this.#waiting.push([entry, this.#last]);
    this.#wake();
  }

  #ready(signal: AbortSignal): Promise<void> | undefined {
    if (this.#waiting.length < MAX_WAITING || this.phase === "closed") return undefined;
    return new Promise<void>((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#drained = done;
      signal.addEventListener("abort", done);
    });
  }

  #closed(): boolean {
    return this.phase === "closed";
  }

  #finish(error?: PenstockError): void {
    if (this.phase === "closed") return;
    this.phase = "closed";
    this.error = error;
    this.#life.abort();
    this.#connection.abort();
    this.#nap.abort();
    this.#wake();
    if (error && error.code !== "aborted") told(this.onerror, error);
    told(this.onclose, this.end);
  }
}

/** What a handler throws is its page's matter, and no loss of the connection. */
function told<T>(handler: ((value: T) => void) | null, value: T): void {
  try {
    handler?.(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
