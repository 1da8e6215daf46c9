// The gateway's address and the credential that goes with each request.

import { PenstockError, refusalOf } from "./errors.js";

/** A key, or what gives one; asked again with `refresh` when the one before was refused. */
export type Token = string | ((refresh: boolean) => string | Promise<string>);

export class Api {
  constructor(
    readonly base: string,
    readonly token: Token | undefined,
    readonly extra: Record<string, string>,
    readonly fetch: typeof globalThis.fetch,
  ) {}

  url(path: string): string {
    return this.base + path;
  }

  async headers(refresh: boolean, more: Record<string, string> = {}): Promise<Record<string, string>> {
    const token = await this.bearer(refresh);
    return { ...this.extra, ...(token ? { Authorization: `Bearer ${token}` } : {}), ...more };
  }

  async bearer(refresh: boolean): Promise<string> {
    return typeof this.token === "function" ? this.token(refresh) : (this.token ?? "");
  }

  /** Run a request; once more with a new token where the old one was refused. */
  async renewing<T>(run: (refresh: boolean) => Promise<T>): Promise<T> {
    try {
      return await run(false);
    } catch (error) {
      if (!(error instanceof PenstockError && error.status === 401 && typeof this.token === "function")) throw error;
      return run(true);
    }
  }

  /** A response that is a success; rejects with a `PenstockError` when it is none. */
  request(path: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<Response> {
    return this.renewing(async (refresh) => {
      const headers = await this.headers(refresh, init.headers);
      const response = await this.fetch(this.url(path), { ...init, headers });
      if (response.ok) return response;
      throw refusalOf(response.status, response.headers.get("Retry-After"), await response.text());
    });
  }
}

/** The HTTP request that an ask is. */
export function requestOf(ask: import("./transport.js").Ask): {
  path: string;
  method: string;
  body?: string;
  headers: Record<string, string>;
} {
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (ask.stream || !ask.creation) {
    if (ask.cursor) headers["Last-Event-ID"] = ask.cursor;
    return { path: `v1/streams/${ask.stream}/events`, method: "GET", headers };
  }
  const { path, method, body, key } = ask.creation;
  if (method === "POST") {
    headers["Content-Type"] = "application/json";
    headers["Idempotency-Key"] = key;
  }
  return { path, method, headers, ...(body === undefined ? {} : { body }) };
}
