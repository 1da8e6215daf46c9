// The client: where the gateway is, who calls, and by which way streams come.

import { Api, type Token } from "./api.js";
import { AutoTransport } from "./auto_transport.js";
import { type Backoff, BACKOFF, type Clock, systemClock } from "./backoff.js";
import { FetchTransport } from "./fetch_transport.js";
import { dialing } from "./pipe.js";
import { Sharing } from "./sharing.js";
import { SocketTransport } from "./socket_transport.js";
import { SILENCE, Stream } from "./stream.js";
import type { Creation, Transport } from "./transport.js";
import { Turns } from "./turns.js";
import { XhrTransport } from "./xhr_transport.js";

export interface Options {
  /** Where the gateway is; the page's own origin when absent. */
  url?: string;
  /** An API key or a browser's token, or what gives one. */
  token?: Token;
  /** More headers for every HTTP request. */
  headers?: Record<string, string>;
  /** `sse` (by fetch, or XMLHttpRequest where fetch does not stream), `fetch`, `xhr`, `websocket`, `auto`
   * (WebSocket where it can be had, else `sse`), `shared` (one WebSocket for all tabs of a browser, one for each
   * where tabs cannot share, and where none can be had `sse`, for all tabs in turns), or one's own. */
  transport?: "sse" | "fetch" | "xhr" | "websocket" | "auto" | "shared" | Transport;
  /** With `shared`: whose tabs they are. As the token says when absent. */
  user?: string;
  backoff?: Partial<Backoff>;
  /** Milliseconds of total silence that count as a lost connection. */
  silence?: number;
  fetch?: typeof globalThis.fetch;
  WebSocket?: typeof globalThis.WebSocket;
  XMLHttpRequest?: new () => XMLHttpRequest;
  clock?: Clock;
}

export interface StartOptions {
  /** How `request` is to be read: `openai_chat` when absent, `anthropic_messages`, `gemini`, … */
  dialect?: string;
  /** A start that is repeated with its key finds the answer that is there. */
  idempotencyKey?: string;
  /** Seconds that the closed stream stays readable. */
  ttl_s?: number;
  /** `continue`, `cancel` or `grace:<seconds>`: what a lost reader means. */
  on_disconnect?: string;
  metadata?: Record<string, string>;
  signal?: AbortSignal;
}

export class Penstock {
  readonly api: Api;
  #transport: Transport;
  #settings: { clock: Clock; backoff: Backoff; silence: number };

  constructor(options: Options = {}) {
    const base = options.url ?? (globalThis.location ? new URL("/", globalThis.location.href).href : "");
    if (!/^https?:\/\//.test(base)) throw new TypeError("url must be the gateway's address, as http://localhost:8080");
    const fetch = options.fetch ?? globalThis.fetch?.bind(globalThis);
    this.api = new Api(base.endsWith("/") ? base : `${base}/`, options.token, options.headers ?? {}, fetch);
    const clock = options.clock ?? systemClock;
    this.#settings = { clock, backoff: { ...BACKOFF, ...options.backoff }, silence: options.silence ?? SILENCE };
    this.#transport = transportOf(options, this.api, clock);
  }

  /** Start a generation. `request` is the dialect's body. */
  start(request: object, options: StartOptions = {}): Stream {
    const { dialect, ttl_s, on_disconnect, metadata, idempotencyKey, signal } = options;
    const message = defined({ request, dialect, ttl_s, on_disconnect, metadata });
    const key = idempotencyKey ?? randomKey();
    return this.#follow({ key, method: "POST", path: "v1/streams", body: JSON.stringify(message), message }, signal);
  }

  /** Ask one question, as `GET /stream` does. */
  ask(content: string, options: { model?: string; system?: string; idempotencyKey?: string; signal?: AbortSignal } = {}): Stream {
    const key = options.idempotencyKey ?? randomKey();
    const query = defined({ content, model: options.model, system: options.system, format: "json", key });
    const path = `stream?${new URLSearchParams(query as Record<string, string>)}`;
    return this.#follow({ key, method: "GET", path }, options.signal);
  }

  /** Start what the operator wrote: a preset. */
  preset(name: string, content: string, options: { variables?: Record<string, string>; idempotencyKey?: string; signal?: AbortSignal } = {}): Stream {
    const body = JSON.stringify(defined({ content, variables: options.variables }));
    const key = options.idempotencyKey ?? randomKey();
    return this.#follow({ key, method: "POST", path: `v1/presets/${encodeURIComponent(name)}`, body }, options.signal);
  }

  /** Read a stream, by its id from its start or by a cursor from behind it. */
  read(where: string, options: { signal?: AbortSignal } = {}): Stream {
    const [stream, position] = where.split("~");
    const what = { stream: stream!, cursor: position === undefined ? "" : where };
    return new Stream({ api: this.api, transport: this.#transport, ...this.#settings }, what, options.signal);
  }

  /** Close what is shared by this client's streams; they come back if they are not over. */
  close(): void {
    this.#transport.close();
  }

  #follow(creation: Creation, signal: AbortSignal | undefined): Stream {
    return new Stream({ api: this.api, transport: this.#transport, ...this.#settings }, { creation }, signal);
  }
}

function transportOf(options: Options, api: Api, clock: Clock): Transport {
  const { transport = "sse" } = options;
  if (typeof transport === "object") return transport;
  const Xhr = options.XMLHttpRequest ?? globalThis.XMLHttpRequest;
  // React Native's fetch has no body to read from.
  const streams = typeof Response === "function" && "body" in Response.prototype;
  const http = transport === "xhr" || (transport !== "fetch" && !streams && Xhr) ? new XhrTransport(api, Xhr) : new FetchTransport(api);
  if (transport !== "websocket" && transport !== "shared" && transport !== "auto") return http;
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  if (!Socket && transport === "websocket") throw new TypeError("there is no WebSocket here: pass one (Node.js has it from 22 on; before, npm ws)");
  const { navigator, BroadcastChannel: Channel } = globalThis;
  // Browsers have locks on pages of HTTPS and of this machine alone.
  const locks = transport === "shared" && Channel ? navigator?.locks : undefined;
  const back = locks ? new Turns(api.base, http, locks, clock) : http;
  if (!Socket) return back;
  let dial = dialing(api, Socket, clock);
  if (transport === "websocket") return new SocketTransport(api, dial, clock, http);
  if (locks) {
    const sharing = new Sharing(api, options.user, dial, clock, { locks, Channel });
    dial = () => sharing.dial();
  }
  return new AutoTransport(new SocketTransport(api, dial, clock, back), back, dial, clock);
}

/** A key that nobody guesses. */
export function randomKey(): string {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto?.getRandomValues) globalThis.crypto.getRandomValues(bytes);
  else bytes.forEach((_, i) => (bytes[i] = Math.random() * 256));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function defined(members: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}
