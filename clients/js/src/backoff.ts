// When to try again, and the clock by which that is measured.

export interface Clock {
  /** Milliseconds. */
  now(): number;
  /** Call back once after so many milliseconds; the result takes it back. */
  after(delay: number, call: () => void): () => void;
  random(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  after(delay, call) {
    const timer = setTimeout(call, delay);
    return () => clearTimeout(timer);
  },
  random: Math.random,
};

export interface Backoff {
  /** Milliseconds that the first delay is at most. */
  first: number;
  /** Milliseconds that any is at most. */
  most: number;
  /** Attempts in a row that may fail. */
  attempts: number;
}

export const BACKOFF: Backoff = { first: 500, most: 30_000, attempts: Infinity };

/** Full jitter: anything up to the doubled delay. `attempt` counts from 1. */
export function delayOf(backoff: Backoff, attempt: number, random: () => number): number {
  return random() * Math.min(backoff.most, backoff.first * 2 ** Math.min(attempt - 1, 30));
}

/** Wait; an abort ends it early. Never rejects. */
export function pause(clock: Clock, delay: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      takeBack();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const takeBack = clock.after(delay, done);
    signal.addEventListener("abort", done);
  });
}
