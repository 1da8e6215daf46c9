// What can go wrong, as a caller sees it; and, inside, what a lost connection is.

/** A refusal, or the end of a stream that is not whole. `code` is one of docs/protocol.md, or one of ours:
 * `aborted`, `nothing`, `unverified`, `unreachable`. */
export class PenstockError extends Error {
  override name = "PenstockError";
  constructor(
    readonly code: string,
    message: string,
    readonly status = 0,
    readonly retryable = false,
    /** Seconds to wait at least. */
    readonly retryAfter = 0,
    /** `client`, `gateway` or `upstream`, where the gateway said it. */
    readonly fault = "",
  ) {
    super(message);
  }
}

/** The connection is gone and another one is to be made: after `after` seconds at least. */
export class Lost extends Error {
  constructor(
    readonly reason: string,
    readonly after = 0,
  ) {
    super(reason);
  }
}

/** Seconds that a server may ask to be left alone; more is not believed. */
export const MOST_AFTER = 600;

/** Read a Retry-After: seconds, or a date. */
export function secondsOf(retryAfter: string | null, now = Date.now()): number {
  if (!retryAfter) return 0;
  const seconds = /^[\d.]+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - now) / 1000;
  return Math.min(Math.max(seconds, 0) || 0, MOST_AFTER);
}

/** Read the error of a response that is no success; from any of the gateway's forms. */
export function refusalOf(status: number, retryAfter: string | null, body: string): PenstockError {
  let error: Record<string, unknown> = {};
  try {
    const parsed = JSON.parse(body);
    error = (typeof parsed.error === "object" && parsed.error) || {};
  } catch {
    // A proxy's page.
  }
  const text = (name: string) => (typeof error[name] === "string" ? (error[name] as string) : "");
  return new PenstockError(
    text("code"),
    text("message") || `the server answered ${status}`,
    status,
    error["retryable"] === true,
    secondsOf(retryAfter),
    text("fault"),
  );
}
