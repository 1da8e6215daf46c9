// HTTP for all tabs of a browser, in turns: over HTTP/1.1 it opens six connections to an origin, for all its
// tabs together, and what is asked beyond them waits without a word until one has ended.
//
// A connection that streams wants one of four seats, which are Web Locks; two connections stay free for
// what is asked besides. Where somebody waits for a seat, whoever has had it for a turn gives it up, and goes
// on from its cursor when it has one again: every stream of every tab grows, in pieces. Where HTTP/2 carries
// all streams on one connection, nobody waits for anybody.

import type { Clock } from "./backoff.js";
import { Lost } from "./errors.js";
import type { Ask, Outcome, Sink, Transport } from "./transport.js";

export const SEATS = 4;
/** Milliseconds that a seat is kept where others wait for it. */
export const TURN = 1_000;

interface Seat {
  name: string;
  release: () => void;
}

export class Turns implements Transport {
  readonly #origin: string;

  constructor(
    base: string,
    readonly http: Transport,
    readonly locks: LockManager,
    readonly clock: Clock,
  ) {
    this.#origin = new URL(base).origin;
  }

  async carry(ask: Ask, sink: Sink, signal: AbortSignal): Promise<Outcome> {
    if (this.#multiplexed()) return this.http.carry(ask, sink, signal);
    const seat = await this.#seat(sink, signal);
    const turn = new AbortController();
    const aborted = () => turn.abort();
    signal.addEventListener("abort", aborted);
    let over = false;
    let since = Infinity;
    let stop = () => {};
    // Timers of a tab that nobody sees come once a minute: what comes in is an occasion, too.
    const look = () => {
      if (turn.signal.aborted || this.clock.now() - since < TURN) return;
      since = this.clock.now();
      this.locks.query().then(({ pending = [] }) => {
        if (turn.signal.aborted || !pending.some(({ name }) => name === seat.name)) return;
        over = true;
        turn.abort();
      }, () => {});
    };
    const tick = () => {
      look();
      stop = this.clock.after(TURN, tick);
    };
    const taking: Sink = {
      ...sink,
      heard: (only) => (sink.heard(only), look()),
      opened: (...what) => {
        sink.opened(...what);
        // Whoever must not leave, lest its answer be stopped, keeps its seat.
        if (leavable(ask)) {
          since = this.clock.now();
          stop = this.clock.after(TURN, tick);
        }
      },
    };
    try {
      return await this.http.carry(ask, taking, turn.signal);
    } catch (error) {
      if (over && !signal.aborted) return "again";
      throw error;
    } finally {
      stop();
      signal.removeEventListener("abort", aborted);
      seat.release();
    }
  }

  close(): void {
    this.http.close();
  }

  /** Whether the browser has spoken HTTP/2 or newer with the gateway. */
  #multiplexed(): boolean {
    const asked = (globalThis.performance?.getEntriesByType?.("resource") ?? []) as PerformanceResourceTiming[];
    return asked.some(({ name, nextHopProtocol }) => name.startsWith(`${this.#origin}/`) && /^h[23]/.test(nextHopProtocol));
  }

  /** A seat that is free; else the next one where the fewest wait. */
  async #seat(sink: Sink, signal: AbortSignal): Promise<Seat> {
    const names = Array.from({ length: SEATS }, (_, n) => `penstock seat ${n} ${this.#origin}`);
    for (const name of names) {
      const seat = await this.#take(name, { ifAvailable: true });
      if (seat) return seat;
    }
    if (signal.aborted) throw new Lost("aborted");
    const { pending = [] } = await this.locks.query();
    const waiting = (name: string) => pending.filter((other) => other.name === name).length;
    const [first] = names.map((name) => [waiting(name) + this.clock.random() / 2, name] as const).sort((a, b) => a[0] - b[0]);
    // To wait for a seat is no silence of the gateway's.
    let stop = () => {};
    const tick = () => {
      sink.heard();
      stop = this.clock.after(TURN, tick);
    };
    tick();
    try {
      return (await this.#take(first![1], { signal }))!;
    } catch {
      throw new Lost("aborted");
    } finally {
      stop();
    }
  }

  #take(name: string, how: LockOptions): Promise<Seat | undefined> {
    return new Promise((resolve, reject) => {
      const taken = (lock: Lock | null) => {
        if (!lock) return resolve(undefined);
        return new Promise<void>((release) => resolve({ name, release }));
      };
      this.locks.request(name, how, taken).catch(reject);
    });
  }
}

function leavable({ creation }: Ask): boolean {
  const leaving = creation?.message?.["on_disconnect"];
  return leaving === undefined || leaving === "continue" || leaving === null;
}
