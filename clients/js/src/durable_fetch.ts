// A fetch whose event streams survive a dropped connection, for readers that know nothing of it: Vercel's
// useChat, the SDKs of OpenAI and Anthropic, any that takes a `fetch`.
//
// A request is repeated with its Idempotency-Key until an answer begins. Of an event stream whole events
// alone are handed on; after a loss the same request goes out with Last-Event-ID, and what comes then stands
// where the lost connection left off. What an abort means is said to the gateway: it stops the model.

import { type Backoff, BACKOFF, type Clock, delayOf, pause, systemClock } from "./backoff.js";
import { randomKey } from "./client.js";
import { secondsOf } from "./errors.js";
import { SseSplitter } from "./sse.js";

export interface DurableOptions {
  fetch?: typeof globalThis.fetch;
  /** 10 attempts in a row when absent. */
  backoff?: Partial<Backoff>;
  /** What an abort of the reader means: `stop` the model (when absent), or `leave` it running. */
  onAbort?: "stop" | "leave";
  clock?: Clock;
}

/** Native routes name their end; what stands in their data may look like any other. */
const NATIVE = /\/(stream|v1\/streams|v1\/presets)([/?]|$)/;
const NATIVE_LAST = /^event: ?(done|fail)\r?$/m;
const LAST = /^(data: ?\[DONE\]|data: ?\{"error"|event: ?(done|fail|error|message_stop|response\.(completed|failed|incomplete))\r?$)/m;

/** An error in a format that knows no event for it: the gateway breaks the connection off behind it. */
const BROKEN = /^data: ?\{"error"/m;

/** Attempts before an answer began: whoever asked waits for them. */
const BEFORE = 6;

export function durableFetch(options: DurableOptions = {}): typeof globalThis.fetch {
  const settings = {
    fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
    clock: options.clock ?? systemClock,
    backoff: { ...BACKOFF, attempts: 10, ...options.backoff },
    stop: options.onAbort !== "leave",
  };
  return async (input, init = {}) => {
    const request = input instanceof Request ? input : undefined;
    const method = (init.method ?? request?.method ?? "GET").toUpperCase();
    const headers = new Headers(init.headers ?? request?.headers);
    const signal = init.signal ?? request?.signal ?? new AbortController().signal;
    const body = init.body ?? (request?.body ? await request.clone().text() : undefined);
    const url = request?.url ?? String(input);
    // What cannot be sent twice goes out as it is.
    const again = body == null || typeof body === "string" || ArrayBuffer.isView(body) || body instanceof ArrayBuffer;
    if (!again || (method !== "POST" && method !== "GET")) return settings.fetch(input, init);
    if (method === "POST" && !headers.has("Idempotency-Key")) headers.set("Idempotency-Key", randomKey());
    const plain = { ...(request && settingsOf(request)), ...init, method, headers, signal, ...(body == null ? {} : { body }) };
    return new Exchange(settings, url, plain as Plain).begin();
  };
}

/** What a request says of how it is to be made, besides the rest. */
function settingsOf({ cache, credentials, integrity, keepalive, mode, redirect, referrer, referrerPolicy }: Request): RequestInit {
  const told = { cache, credentials, integrity, keepalive, redirect, referrer, referrerPolicy };
  return mode === "navigate" ? told : { ...told, mode };
}

interface Plain extends RequestInit {
  headers: Headers;
  signal: AbortSignal;
}

class Exchange {
  #attempt = 0;
  #id = "";
  #handed = 0;
  #stopUrl = "";
  #over = false;
  #leave = new AbortController();

  constructor(
    readonly settings: { fetch: typeof globalThis.fetch; clock: Clock; backoff: Backoff; stop: boolean },
    readonly url: string,
    readonly init: Plain,
  ) {}

  /** The first response, whatever it says. */
  async begin(): Promise<Response> {
    const { signal } = this.init;
    let response: Response;
    // The gateway may have begun, though nothing was heard of it.
    const unanswered = () => this.#stop();
    signal.addEventListener("abort", unanswered);
    try {
      for (;;) {
        try {
          response = await this.settings.fetch(this.url, this.init);
          break;
        } catch (error) {
          if (signal.aborted) throw error;
          await this.#again(error, { most: BEFORE });
          if (signal.aborted) throw signal.reason ?? error;
        }
      }
    } finally {
      signal.removeEventListener("abort", unanswered);
    }
    const type = response.headers.get("Content-Type") ?? "";
    if (!response.ok || !response.body || !type.startsWith("text/event-stream")) return response;
    const place = response.headers.get("Location");
    const id = response.headers.get("Stream-Id");
    if (place && id) this.#stopUrl = new URL(place, response.url || this.url).href.replace(/(\/v1\/streams\/[^/?]+).*$/, "$1/cancel");
    let reader: ReadableStreamDefaultReader<Uint8Array> = response.body.getReader();
    let splitter = new SseSplitter();
    const queue: Uint8Array[] = [];
    let skip = 0;
    const aborted = () => this.#stop();
    signal.addEventListener("abort", aborted);
    const finish = () => {
      this.#over = true;
      signal.removeEventListener("abort", aborted);
    };
    let last = false;
    let broken = false;
    const end = NATIVE.test(this.url) && !/[?&]dialect=/.test(this.url) ? NATIVE_LAST : LAST;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
      for (;;) {
        const block = queue.shift();
        if (block) return controller.enqueue(block);
        let failure: unknown = null;
        try {
          const { value, done } = await reader.read();
          if (!done) {
            for (const found of splitter.feed(value)) {
              const text = new TextDecoder().decode(found);
              const data = /^data/m.test(text);
              if (data && skip > 0) {
                skip -= 1;
                continue;
              }
              if (data) {
                this.#handed += 1;
                this.#attempt = 0;
              }
              this.#id = /^id: ?(.+?)\r?$/m.exec(text)?.[1] ?? this.#id;
              if (data) {
                last = end.test(text);
                broken = last && BROKEN.test(text);
              }
              queue.push(found);
            }
            continue;
          }
        } catch (error) {
          failure = error ?? new TypeError("the connection was lost");
        }
        if (signal.aborted) {
          finish();
          throw signal.reason;
        }
        // Without ids there is nothing to go on from. What is lost behind the last event is nothing; but a
        // reader that knows no errors must not take an answer that broke off for a whole one.
        if (last || (!failure && !this.#id)) {
          finish();
          if (failure && (broken || !last)) throw failure;
          return controller.close();
        }
        await reader.cancel().catch(() => {});
        const next = await this.#resume(failure ?? new TypeError("the answer was cut")).catch((error) => {
          finish();
          throw error;
        });
        if (!next) {
          finish();
          return controller.close();
        }
        reader = next.getReader();
        splitter = new SseSplitter();
        skip = this.#id ? 0 : this.#handed;
      }
    };
    const stream = new ReadableStream<Uint8Array>(
      {
        pull,
        cancel: async () => {
          if (!this.#over) this.#stop();
          finish();
          this.#leave.abort();
          await reader.cancel().catch(() => {});
        },
      },
      { highWaterMark: 0 },
    );
    const { status, statusText, headers } = response;
    const durable = new Response(stream, { status, statusText, headers });
    Object.defineProperty(durable, "url", { value: response.url });
    return durable;
  }

  /** The body that goes on where the last one was lost; null when all was there. */
  async #resume(error: unknown): Promise<ReadableStream<Uint8Array> | null> {
    const headers = new Headers(this.init.headers);
    if (this.#id) headers.set("Last-Event-ID", this.#id);
    else if (this.init.method === "GET" && this.#handed) throw error; // nothing says that it is the same again
    let after = 0;
    for (;;) {
      await this.#again(error, { after });
      after = 0;
      if (this.init.signal.aborted) throw this.init.signal.reason;
      if (this.#leave.signal.aborted) return null;
      let response: Response;
      try {
        response = await this.settings.fetch(this.url, { ...this.init, headers });
      } catch (lost) {
        error = lost;
        continue;
      }
      if (response.status === 204) return null;
      const type = response.headers.get("Content-Type") ?? "";
      if (response.ok && response.body && type.startsWith("text/event-stream")) return response.body;
      error = new TypeError(`the answer was cut, and its rest refused (${response.status})`);
      after = secondsOf(response.headers.get("Retry-After"));
      await response.body?.cancel().catch(() => {});
      if (!response.ok && response.status < 500 && response.status !== 429 && response.status !== 408) throw error;
    }
  }

  /** `after`: seconds that there must be at least. */
  async #again(error: unknown, { most = Infinity, after = 0 } = {}): Promise<void> {
    const { backoff, clock } = this.settings;
    this.#attempt += 1;
    if (this.#attempt > Math.min(most, backoff.attempts)) throw error;
    const wait = new AbortController();
    const wake = () => wait.abort();
    for (const signal of [this.init.signal, this.#leave.signal]) signal.addEventListener("abort", wake);
    await pause(clock, Math.max(delayOf(backoff, this.#attempt, clock.random), after * 1000), wait.signal);
    for (const signal of [this.init.signal, this.#leave.signal]) signal.removeEventListener("abort", wake);
  }

  #stop(): void {
    if (this.#over || !this.settings.stop) return;
    const headers: Record<string, string> = {};
    const key = this.init.headers.get("Idempotency-Key");
    let url = this.#stopUrl;
    if (!url) {
      const base = /^(.*?\/)(v1|v1beta|ui|api)\//.exec(this.url);
      if (!key || !base) return;
      url = `${base[1]}v1/streams/cancel`;
      headers["Idempotency-Key"] = key;
    }
    const authorization = this.init.headers.get("Authorization");
    if (authorization) headers["Authorization"] = authorization;
    this.settings.fetch(url, { method: "POST", headers, keepalive: true }).catch(() => {});
  }
}
