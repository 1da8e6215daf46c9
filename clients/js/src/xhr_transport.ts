// Server-sent events by XMLHttpRequest: in React Native, whose fetch does not stream.

import { type Api, requestOf } from "./api.js";
import { Lost, refusalOf } from "./errors.js";
import { hand } from "./fetch_transport.js";
import { SseDecoder } from "./sse.js";
import type { Ask, Outcome, Sink, Transport } from "./transport.js";

/** All that came is kept in `responseText`: a connection that brought so many characters is replaced. */
export const MAX_TEXT = 1024 * 1024;

export class XhrTransport implements Transport {
  constructor(
    readonly api: Api,
    readonly Request: new () => XMLHttpRequest,
  ) {}

  carry(ask: Ask, sink: Sink, signal: AbortSignal): Promise<Outcome> {
    const { path, method, body, headers } = requestOf(ask);
    return this.api.renewing(async (refresh) => {
      const all = await this.api.headers(refresh, headers);
      return new Promise<Outcome>((resolve, reject) => {
        if (signal.aborted) return reject(new Lost("aborted"));
        const xhr = new this.Request();
        const decoder = new SseDecoder();
        let seen = "";
        const leave = (settle: () => void) => {
          xhr.onreadystatechange = xhr.onerror = null;
          signal.removeEventListener("abort", aborted);
          if (xhr.readyState !== 4) xhr.abort();
          settle();
        };
        const aborted = () => leave(() => reject(new Lost("aborted")));
        signal.addEventListener("abort", aborted);
        const take = () => {
          const text = xhr.responseText;
          // After a failure in the body, React Native puts the error's message in the place of the text.
          if (text.length <= seen.length || !text.startsWith(seen)) return;
          const more = text.slice(seen.length);
          seen = text;
          const { comments } = decoder;
          const events = decoder.feed(more);
          sink.heard(decoder.comments > comments);
          for (const event of events) hand(event, sink);
          const ready = sink.ready();
          if (ready) leave(() => void ready.then(() => resolve("again")));
          else if (seen.length > MAX_TEXT && xhr.readyState !== 4) leave(() => resolve("again"));
        };
        xhr.onreadystatechange = () => {
          try {
            if (xhr.readyState === 2) sink.heard();
            if (xhr.readyState >= 3 && xhr.status === 200) take();
            if (xhr.readyState !== 4 || xhr.onreadystatechange === null) return;
            const { status } = xhr;
            if (status === 200) leave(() => resolve("ended"));
            else if (status === 204) leave(() => resolve("nothing"));
            else if (status === 0) leave(() => reject(new Lost("network")));
            else leave(() => reject(refusalOf(status, xhr.getResponseHeader?.("Retry-After") ?? null, xhr.responseText)));
          } catch (error) {
            leave(() => reject(error));
          }
        };
        xhr.onerror = () => leave(() => reject(new Lost("network")));
        xhr.open(method, this.api.url(path), true);
        for (const [name, value] of Object.entries(all)) xhr.setRequestHeader(name, value);
        xhr.send(body ?? null);
      });
    });
  }

  close(): void {}
}
