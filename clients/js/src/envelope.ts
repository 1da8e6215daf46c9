// The messages of the WebSocket (docs/protocol.md, section 11). Sibling of src/penstock/wire/envelope.py.

export interface Message {
  type: string;
  rid?: string;
  stream?: string;
  /** Of a stream; of an `err`, that of the response that says the same. */
  status?: string | number;
  tail?: number;
  c?: string;
  ev?: string;
  code?: string;
  message?: string;
  fault?: string;
  retryable?: boolean;
  retry_after?: number;
  retry_ms?: number;
  /** The record of an `entry` or `end`, byte for byte. */
  record?: string;
}

const TYPES = new Set(["open", "entry", "end", "none", "gap", "err", "cancelled", "authed", "goaway", "pong"]);

/** Read a message of the gateway; null where it is to be ignored. Throws what JSON does. */
export function decode(text: string): Message | null {
  const { d, ...message } = JSON.parse(text);
  if (!TYPES.has(message.type)) return null;
  // `d` is the last member, and quotes within texts are escaped: the first such place is its name.
  if (d !== undefined) message.record = text.slice(text.search(/,\s*"d"\s*:/)).replace(/^,\s*"d"\s*:\s*|\s*\}\s*$/g, "");
  return message as Message;
}
