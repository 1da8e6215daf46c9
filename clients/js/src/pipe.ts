// A connection as a pipe of text messages: a WebSocket that says who it is, and says it again in time.

import type { Api } from "./api.js";
import type { Clock } from "./backoff.js";

/** Both ways, in order, until it closes. `onclose` is called once; nothing comes after it. */
export interface Pipe {
  send(text: string): void;
  close(): void;
  onopen: () => void;
  onmessage: (text: string) => void;
  /** `error` says why, where that is more than a code. */
  onclose: (code: number, error?: unknown) => void;
}

export type Dial = () => Pipe;

/** The token was refused, or its time is over. */
export const REFUSED = 4401;
/** What was carried here is carried by somebody else from now on: ask again, at once. */
export const MOVED = 4900;

/** Milliseconds that a handshake may take. */
const OPENING = 10_000;
/** Milliseconds before its end that a token is replaced, and which part of a short one's time that is at most. */
const MARGIN = 60_000;
const PART = 5;
/** A timer of more is none. */
const MAX_TIMER = 2 ** 31 - 1;

export function pipe(send: (text: string) => void, close: () => void): Pipe {
  return { send, close, onopen: () => {}, onmessage: () => {}, onclose: () => {} };
}

/** A pipe that is a WebSocket, open once it was said who is calling. */
export function dialing(api: Api, Socket: typeof WebSocket, clock: Clock): Dial {
  let refused = false;
  return () => {
    const socket = new Socket(api.url("v1/ws").replace(/^http/, "ws"), "penstock.v1+json");
    let closed = false;
    let forget = () => {};
    const close = (code: number, error?: unknown) => {
      if (closed) return;
      closed = true;
      forget();
      refused = code === REFUSED;
      one.onclose(code, error);
    };
    const leave = (error?: unknown) => {
      socket.close();
      close(1000, error); // the other side may be dead, and its goodbye never come
    };
    const say = async (refresh: boolean) => {
      const token = await api.bearer(refresh);
      if (token) one.send(JSON.stringify({ type: "auth", token }));
    };
    const one = pipe((text) => socket.readyState === 1 && socket.send(text), leave);
    forget = clock.after(OPENING, leave);
    socket.onopen = () => {
      forget();
      say(refused).then(() => closed || one.onopen(), leave);
    };
    socket.onmessage = ({ data }) => {
      if (closed) return;
      const seconds = /^\{"type":"authed",.*?"expires_in":([0-9.]+)/.exec(data as string)?.[1];
      if (seconds && typeof api.token === "function") {
        const left = Number(seconds) * 1000;
        forget();
        // Where there is no new one yet, the gateway closes when the time is over, and it is asked for again.
        const renew = () => void say(true).catch(() => {});
        forget = clock.after(Math.min(left - Math.min(MARGIN, left / PART), MAX_TIMER), renew);
      }
      one.onmessage(data as string);
    };
    socket.onclose = ({ code }) => close(code);
    // Node.js 20 leaves it at this where the handshake fails; elsewhere a close with its code follows.
    socket.onerror = () => socket.readyState === 0 && close(1006);
    return one;
  };
}
