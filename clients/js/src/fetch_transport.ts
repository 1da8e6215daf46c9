// Server-sent events by fetch: in browsers and Node.js.

import { type Api, requestOf } from "./api.js";
import { Lost } from "./errors.js";
import { type SseEvent, SseDecoder } from "./sse.js";
import type { Ask, Outcome, Sink, Transport } from "./transport.js";

export class FetchTransport implements Transport {
  constructor(readonly api: Api) {}

  async carry(ask: Ask, sink: Sink, signal: AbortSignal): Promise<Outcome> {
    const { path, ...init } = requestOf(ask);
    const response = await this.api.request(path, { ...init, signal, cache: "no-store" });
    if (response.status === 204) return "nothing";
    if (!response.body || !response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new Lost("proxy");
    sink.heard();
    const decoder = new SseDecoder();
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return "ended";
        const { comments } = decoder;
        const events = decoder.feed(value);
        sink.heard(decoder.comments > comments);
        for (const event of events) hand(event, sink);
        const ready = sink.ready();
        if (ready) await ready;
        if (signal.aborted) return "ended";
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  close(): void {}
}

/** Hand a native event to the reader. */
export function hand({ event, data, id }: SseEvent, sink: Sink): void {
  if (event === "stream") {
    const { tail = 0, heartbeat = 0 } = JSON.parse(data);
    sink.opened(id.split("~")[0]!, tail, heartbeat);
  } else if (/^\{"n":/.test(data)) sink.entry(data, id);
  else if (event === "fail") {
    const { code = "", message = "", retryable = false } = JSON.parse(data);
    sink.failed(code, message, retryable);
  }
}
