// Many streams on one WebSocket, or on what stands for one: a pipe of text messages.

import type { Api } from "./api.js";
import type { Clock } from "./backoff.js";
import { decode, type Message } from "./envelope.js";
import { Lost, PenstockError } from "./errors.js";
import { type Dial, MOVED, type Pipe, REFUSED } from "./pipe.js";
import type { Ask, Outcome, Sink, Transport } from "./transport.js";

const PING = 15_000;
/** Milliseconds that a ping may go unanswered. */
const SILENCE = 30_000;
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
  #name = Math.random().toString(36).slice(2, 10);

  /** `fallback` takes what only HTTP has a route for. */
  constructor(
    readonly api: Api,
    readonly dial: Dial,
    readonly clock: Clock,
    readonly fallback: Transport,
  ) {}

  /** Whether there is a connection that takes another stream. */
  get takes(): boolean {
    return this.#connection?.takes ?? false;
  }

  /** Go on with a pipe that is open. */
  adopt(pipe: Pipe): void {
    this.#connect(pipe).opened();
  }

  #connect(pipe: Pipe): Connection {
    const again = typeof this.api.token === "function" && this.#refused < 2;
    return (this.#connection = new Connection(pipe, this.clock, again, (code) => {
      this.#refused = code === REFUSED ? this.#refused + 1 : 0;
    }));
  }

  carry(ask: Ask, sink: Sink, signal: AbortSignal): Promise<Outcome> {
    if (!ask.stream && !ask.creation?.message) return this.fallback.carry(ask, sink, signal);
    return new Promise<Outcome>((resolve, reject) => {
      if (signal.aborted) return reject(new Lost("aborted"));
      if (!this.takes) this.#connect(this.dial());
      const connection = this.#connection!;
      const rid = `${this.#name}${++this.#rid}`;
      const leave = () => {
        signal.removeEventListener("abort", aborted);
        connection.drop(rid);
      };
      const aborted = () => {
        if (connection.follows(rid)) connection.send({ type: "detach", rid });
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
  /** When the first ping went out that is not answered. */
  #asked: number;
  #idleSince: number;
  #stopTimer: () => void = () => {};
  /** What the gateway said of the connection as a whole. */
  #complaint: PenstockError | undefined;
  /** Seconds after which a gateway that leaves wants to be asked again. */
  #pause = 0;

  /** `again`: whether a token that is refused can be replaced. */
  constructor(
    readonly pipe: Pipe,
    readonly clock: Clock,
    again: boolean,
    closed: (code: number) => void,
  ) {
    this.#heard = this.#asked = this.#idleSince = clock.now();
    pipe.onopen = () => this.opened();
    pipe.onmessage = (text) => this.#message(text);
    pipe.onclose = (code, error) => {
      this.takes = this.#open = false;
      this.#stopTimer();
      closed(code);
      const refused = code === REFUSED && !again;
      if (refused) error = this.#complaint ?? new PenstockError("unauthenticated", "the token was refused", 401);
      for (const reader of [...this.#readers.values()]) {
        if (code === MOVED) reader.settle("again");
        else reader.fail(error ?? new Lost("network", this.#pause));
      }
    };
    this.#tick();
  }

  opened(): void {
    this.#open = true;
    for (const [rid, reader] of this.#readers) this.#ask(rid, reader);
  }

  add(rid: string, reader: Reader): void {
    this.#readers.set(rid, reader);
    if (this.#readers.size >= RIDS) this.takes = false;
    if (this.#open) this.#ask(rid, reader);
  }

  follows(rid: string): boolean {
    return this.#readers.has(rid);
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

  #ask(rid: string, { ask }: Reader): void {
    if (!ask.stream) this.send({ type: "create", rid, ...ask.creation!.message, idempotency_key: ask.creation!.key });
    else this.send({ type: "read", rid, stream: ask.stream, ...(ask.cursor ? { after: ask.cursor } : {}) });
  }

  #message(text: string): void {
    this.#heard = this.clock.now();
    let message: Message | null;
    try {
      message = decode(text);
    } catch {
      return this.close(); // whoever says this is no gateway
    }
    this.#alive(message?.type === "pong");
    if (!message) return;
    if (message.type === "goaway") {
      this.takes = false;
      this.#pause = (message.retry_ms ?? 0) / 1000;
    }
    if (message.type === "err" && message.rid === undefined) this.#complaint = errorOf(message, 401);
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
    if (message.type === "open") sink.opened((reader.stream = message.stream!), message.tail);
    else if (message.type === "none") reader.settle("nothing");
    else if (message.type === "err") {
      if (message.code === "too_many_rids") {
        this.takes = false;
        reader.settle("again");
      } else reader.fail(errorOf(message));
    } else if (message.record !== undefined && message.c?.startsWith(`${reader.stream}~`)) {
      // In UTF-8 a text has up to three bytes a unit; to grant too much is harmless, too little stalls.
      reader.taken += text.length * 3;
      if (message.type === "end") this.drop(message.rid!); // the gateway has, too
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

  #alive(only = false): void {
    for (const reader of this.#readers.values()) reader.sink.heard(only);
  }

  #tick(): void {
    this.#stopTimer = this.clock.after(PING, () => {
      const now = this.clock.now();
      const idle = !this.#readers.size && now - this.#idleSince >= IDLE;
      const waits = this.#asked > this.#heard;
      if (idle || (waits && now - this.#asked >= SILENCE)) return this.close();
      // In a tab that nobody sees timers come once a minute: then silence means that nobody asked.
      if (!waits) {
        this.#asked = now;
        this.#alive();
      }
      this.send({ type: "ping" });
      this.#tick();
    });
  }
}

function errorOf({ code = "", message = code, status, retryable, retry_after, fault }: Message, otherwise = 0): PenstockError {
  return new PenstockError(code, message, typeof status === "number" ? status : otherwise, retryable, retry_after, fault);
}
