// Many streams on one WebSocket, or on what stands for one: a pipe of text messages.

import type { Api } from "./api.js";
import type { Clock } from "./backoff.js";
import { decode, type Message } from "./envelope.js";
import { Lost, PenstockError } from "./errors.js";
import type { Ask, Outcome, Sink, Transport } from "./transport.js";

/** Both ways, in order, until it closes. `onclose` is called once; nothing comes after it. */
export interface Pipe {
  send(text: string): void;
  close(): void;
  onopen: () => void;
  onmessage: (text: string) => void;
  onclose: (code: number) => void;
}

const PING = 15_000;
/** Milliseconds of total silence after which the socket is taken for dead. */
const SILENCE = 45_000;
/** Milliseconds that a socket stays open without a stream. */
const IDLE = 30_000;
const GRANT = 128 * 1024;
const RIDS = 256;

interface Reader {
  ask: Ask;
  sink: Sink;
  stream: string;
  taken: number;
  settle(outcome: Outcome): void;
  fail(error: unknown): void;
}

export class SocketTransport implements Transport {
  #connection: Connection | undefined;
  #refused = 0;
  #rid = 0;
  #name = Math.random().toString(36).slice(2, 8);

  /** `fallback` takes what only HTTP has a route for. */
  constructor(
    readonly api: Api,
    readonly dial: () => Pipe,
    readonly clock: Clock,
    readonly fallback: Transport,
  ) {}

  carry(ask: Ask, sink: Sink, signal: AbortSignal): Promise<Outcome> {
    if (!ask.stream && !ask.creation?.message) return this.fallback.carry(ask, sink, signal);
    return new Promise<Outcome>((resolve, reject) => {
      if (signal.aborted) return reject(new Lost("aborted"));
      if (!this.#connection?.takes) {
        this.#connection = new Connection(this.api, this.dial(), this.clock, this.#refused, (code) => {
          this.#refused = code === 4401 ? this.#refused + 1 : 0;
        });
      }
      const connection = this.#connection;
      const rid = `${this.#name}${++this.#rid}`;
      const leave = () => {
        signal.removeEventListener("abort", aborted);
        connection.drop(rid);
      };
      const aborted = () => {
        connection.send({ type: "detach", rid });
        leave();
        reject(new Lost("aborted"));
      };
      signal.addEventListener("abort", aborted);
      connection.add(rid, {
        ask,
        sink,
        stream: ask.stream,
        taken: 0,
        settle: (outcome) => (leave(), resolve(outcome)),
        fail: (error) => (leave(), reject(error)),
      });
    });
  }

  close(): void {
    this.#connection?.close();
    this.#connection = undefined;
  }
}

class Connection {
  takes = true;
  #readers = new Map<string, Reader>();
  #open = false;
  #heard: number;
  #stopTimer: () => void = () => {};
  #idleSince: number;

  constructor(
    readonly api: Api,
    readonly pipe: Pipe,
    readonly clock: Clock,
    refused: number,
    closed: (code: number) => void,
  ) {
    this.#heard = this.#idleSince = clock.now();
    pipe.onopen = () => void this.#opened(refused > 0);
    pipe.onmessage = (text) => this.#message(text);
    pipe.onclose = (code) => {
      this.takes = this.#open = false;
      this.#stopTimer();
      closed(code);
      const again = typeof api.token === "function" && refused < 2;
      const error =
        code === 4401 && !again ? new PenstockError("unauthenticated", "the token was refused", 401) : new Lost("network");
      for (const reader of [...this.#readers.values()]) reader.fail(error);
    };
    this.#tick();
  }

  add(rid: string, reader: Reader): void {
    this.#readers.set(rid, reader);
    if (this.#readers.size >= RIDS) this.takes = false;
    if (this.#open) this.#ask(rid, reader);
  }

  drop(rid: string): void {
    this.#readers.delete(rid);
    if (!this.#readers.size) {
      this.#idleSince = this.clock.now();
      if (!this.takes) this.close();
    }
  }

  send(message: Record<string, unknown>): void {
    if (this.#open) this.pipe.send(JSON.stringify(message));
  }

  close(): void {
    this.takes = false;
    this.pipe.close();
  }

  async #opened(refresh: boolean): Promise<void> {
    try {
      const token = await this.api.bearer(refresh);
      this.#open = true;
      if (token) this.send({ type: "auth", token });
    } catch (error) {
      for (const reader of [...this.#readers.values()]) reader.fail(error);
      this.close();
      return;
    }
    for (const [rid, reader] of this.#readers) this.#ask(rid, reader);
  }

  #ask(rid: string, { ask }: Reader): void {
    if (!ask.stream) this.send({ type: "create", rid, ...ask.creation!.message, idempotency_key: ask.creation!.key });
    else this.send({ type: "read", rid, stream: ask.stream, ...(ask.cursor ? { after: ask.cursor } : {}) });
  }

  #message(text: string): void {
    this.#heard = this.clock.now();
    for (const reader of this.#readers.values()) reader.sink.heard();
    const message = decode(text);
    if (!message) return;
    if (message.type === "goaway") this.takes = false;
    const reader = message.rid === undefined ? undefined : this.#readers.get(message.rid);
    if (!reader) return;
    try {
      this.#hand(message, reader, text);
    } catch (error) {
      this.send({ type: "detach", rid: message.rid });
      reader.fail(error);
    }
  }

  #hand(message: Message, reader: Reader, text: string): void {
    const { sink } = reader;
    if (message.type === "open") sink.opened((reader.stream = message.stream!));
    else if (message.type === "none") reader.settle("nothing");
    else if (message.type === "err") {
      const { code = "", retryable = false, retry_after = 0 } = message;
      reader.fail(new PenstockError(code, message.message ?? code, 0, retryable, retry_after));
    } else if (message.record !== undefined && message.c?.startsWith(`${reader.stream}~`)) {
      // In UTF-8 a text has up to three bytes a unit; to grant too much is harmless, too little stalls.
      reader.taken += text.length * 3;
      sink.entry(message.record, message.c);
      if (message.type === "end") reader.settle("ended");
      else if (reader.taken >= GRANT) {
        const bytes = reader.taken;
        reader.taken = 0;
        const grant = () => this.send({ type: "credit", rid: message.rid, bytes });
        const ready = sink.ready();
        if (ready) void ready.then(grant);
        else grant();
      }
    }
  }

  #tick(): void {
    this.#stopTimer = this.clock.after(PING, () => {
      const now = this.clock.now();
      const idle = !this.#readers.size && now - this.#idleSince >= IDLE;
      if (idle || now - this.#heard >= SILENCE) this.close();
      else {
        this.send({ type: "ping" });
        this.#tick();
      }
    });
  }
}

/** A pipe that is a WebSocket. */
export function dialing(url: string, Socket: typeof WebSocket): () => Pipe {
  return () => {
    const socket = new Socket(url.replace(/^http/, "ws"), "penstock.v1+json");
    let closed = false;
    const close = (code: number) => {
      if (!closed) pipe.onclose(code);
      closed = true;
    };
    const pipe: Pipe = {
      send: (text) => socket.readyState === 1 && socket.send(text),
      close: () => {
        socket.close();
        close(1000); // the other side may be dead, and its goodbye never come
      },
      onopen: () => {},
      onmessage: () => {},
      onclose: () => {},
    };
    socket.onopen = () => !closed && pipe.onopen();
    socket.onmessage = (event) => !closed && pipe.onmessage(event.data as string);
    socket.onclose = (event) => close(event.code);
    return pipe;
  };
}
