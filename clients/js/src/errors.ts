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
    Number(retryAfter) || 0,
    text("fault"),
  );
}
