// WebSocket where it can be had, HTTP where it cannot.
//
// A socket counts once something has come through it: proxies refuse the upgrade, never answer it, or open a
// socket and hand nothing on. Nothing is asked on one before that, so a trial that fails has started nothing
// and lost nothing. A stream waits for the trial a moment and goes by HTTP then; a socket that comes later is
// there for the next one. What does not work while HTTP does is left alone for a while, and tried again
// beside a stream that goes by HTTP. Where HTTP fails as well, the gateway is away, and nothing is learnt.

import type { Clock } from "./backoff.js";
import { Lost } from "./errors.js";
import { type Dial, MOVED, type Pipe, REFUSED } from "./pipe.js";
import type { SocketTransport } from "./socket_transport.js";
import type { Ask, Outcome, Sink, Transport } from "./transport.js";

/** Milliseconds that a stream waits for a socket before it goes by HTTP. */
export const HEAD_START = 1_500;
/** Milliseconds within which something must have come through a socket. */
export const TRIAL = 10_000;
/** Milliseconds for which a way that does not work is not tried again: at first, and at most. */
export const BLOCKED = 30_000;
export const MOST_BLOCKED = 10 * 60_000;
/** A socket that dies within so many milliseconds, twice in a row, does not work. */
const YOUNG = 10_000;
const DEATHS = 2;
const WORKS = 0;
/** What a browser gives a socket that was lost without a word. */
const BROKEN = 1006;

export class AutoTransport implements Transport {
  #trial: Promise<void> | undefined;
  /** Since the last socket that worked: one did not; HTTP did, while one was tried. */
  #failed = false;
  #reached = false;
  #blockedUntil = 0;
  #block = 0;
  #born = 0;
  #deaths = 0;
  #tried: Pipe | undefined;

  /** `dial` is that of `socket`, whose connections are all made here. */
  constructor(
    readonly socket: SocketTransport,
    readonly http: Transport,
    readonly dial: Dial,
    readonly clock: Clock,
  ) {}

  async carry(ask: Ask, sink: Sink, signal: AbortSignal): Promise<Outcome> {
    if (!ask.stream && !ask.creation?.message) return this.http.carry(ask, sink, signal);
    if (await this.#works(signal)) {
      const born = this.#born;
      try {
        return await this.socket.carry(ask, sink, signal);
      } catch (error) {
        if (!signal.aborted && error instanceof Lost && error.reason === "network") this.#died(born);
        throw error;
      }
    }
    if (signal.aborted) throw new Lost("aborted");
    const opened: Sink["opened"] = (...what) => {
      this.#reached = true;
      this.#judge();
      sink.opened(...what);
    };
    return this.http.carry(ask, { ...sink, opened }, signal);
  }

  close(): void {
    this.socket.close();
    this.#tried?.close();
    this.http.close();
  }

  /** Whether a socket is there, at the latest after the head start. */
  async #works(signal: AbortSignal): Promise<boolean> {
    if (this.socket.takes) return true;
    if (this.#deaths >= DEATHS || this.clock.now() < this.#blockedUntil) return false;
    this.#trial ??= this.#try();
    // What did not work before is tried beside.
    if (!this.#block) await this.#soon(this.#trial, signal);
    return this.socket.takes && !signal.aborted;
  }

  #soon(trial: Promise<unknown>, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        forget();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const forget = this.clock.after(HEAD_START, done);
      signal.addEventListener("abort", done);
      void trial.then(done);
    });
  }

  /** Open a socket, and hand it on once something came through it. */
  async #try(): Promise<void> {
    this.#reached = false;
    const code = await new Promise<number>((resolve) => {
      const pipe = (this.#tried = this.dial());
      const forget = this.clock.after(TRIAL, () => pipe.close());
      pipe.onopen = () => pipe.send('{"type":"ping"}');
      pipe.onmessage = (text) => {
        if (!/^\{\s*"type"\s*:\s*"pong"/.test(text)) return; // an error, say: a token is wanted
        forget();
        this.#born = this.clock.now();
        this.socket.adopt(pipe);
        resolve(WORKS);
      };
      pipe.onclose = (code) => {
        forget();
        resolve(code);
      };
    }).catch(() => BROKEN); // the browser does not allow a socket to this address
    if (code === WORKS) {
      this.#failed = false;
      this.#block = 0;
    } else if (code !== REFUSED && code !== MOVED) {
      // Of a token that was refused the gateway told, through a socket; and another tab's socket may come.
      this.#failed = true;
      this.#judge();
    }
    this.#trial = this.#tried = undefined;
  }

  /** A connection that was made at `born` was lost; all its streams say so. */
  #died(born: number): void {
    if (born !== this.#born) return;
    this.#born = -1;
    this.#deaths = this.clock.now() - born < YOUNG ? this.#deaths + 1 : 0;
    if (this.#deaths >= DEATHS) this.#failed = true;
  }

  #judge(): void {
    if (!this.#failed || !this.#reached) return;
    this.#block = Math.min(MOST_BLOCKED, this.#block * 2 || BLOCKED);
    this.#blockedUntil = this.clock.now() + this.#block;
    this.#failed = this.#reached = false;
    this.#deaths = 0;
  }
}
