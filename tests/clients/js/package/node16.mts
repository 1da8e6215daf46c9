// What the types of the package promise to a program: compiled, and never run.

import { durableFetch, type Entry, Penstock, PenstockError, type StartOptions } from "penstock";
import { type StreamState, useStream } from "penstock/react";

const options: StartOptions = { ttl_s: 5, metadata: { a: "b" }, signal: AbortSignal.timeout(1_000) };
const penstock = new Penstock({
  url: "http://localhost",
  transport: "auto",
  token: async (refresh: boolean) => (refresh ? "new" : "old"),
  fetch: durableFetch({ onAbort: "leave" }),
});

function told(entry: Entry): string {
  if (entry.type === "text") return entry.delta.slice(entry.index ?? 0);
  if (entry.type === "end") return entry.status satisfies "completed" | "failed" | "cancelled" | "interrupted" | "expired";
  return entry.type;
}

export async function all(): Promise<string> {
  const stream = penstock.start({ model: "demo", messages: [] }, options);
  stream.onretry = ({ attempt, delay, reason }) => console.log(attempt.toFixed(), delay.toFixed(), reason.trim());
  let text = "";
  for await (const entry of stream) text += entry.type === "restarted" ? "" : told(entry);
  try {
    text += (await penstock.read(stream.cursor).result()).end.status;
  } catch (error) {
    if (!(error instanceof PenstockError)) throw error;
    text += error.retryable ? error.retryAfter.toFixed() : error.code;
  }
  // @ts-expect-error: there is no such way
  new Penstock({ transport: "carrier pigeon" });
  // @ts-expect-error: a delta is a text
  text = ((stream as AsyncIterable<Entry>) && (({ n: 1, type: "text", delta: 5 }) satisfies Entry)).type;
  return text;
}

export const hook: () => StreamState = useStream;
