// What a stream consists of: the entries of the native format (docs/protocol.md, "Native events").

/** The terminal entry: how the stream ended. */
export interface End {
  n: number;
  type: "end";
  status: "completed" | "failed" | "cancelled" | "interrupted" | "expired";
  code?: string;
  message?: string;
  fault?: "client" | "gateway" | "upstream";
  retryable?: boolean;
  retry_after?: number;
  entries?: number;
  sha256?: string;
  text_sha256?: string;
  usage?: Record<string, unknown>;
  timing?: Record<string, number>;
  [more: string]: unknown;
}

/** A piece of the answer's text. `index` is the choice, 0 when absent. */
export interface TextDelta {
  n: number;
  type: "text";
  delta: string;
  index?: number;
}

/** Any other entry: `started`, `reasoning`, `refusal`, `tool_call`, `usage`, `finish`, `seam`, … */
export interface OtherEntry {
  n: number;
  type: "started" | "reasoning" | "refusal" | "tool_call" | "annotation" | "usage" | "finish" | "opaque" | "seam";
  [more: string]: unknown;
}

export type Entry = TextDelta | End | OtherEntry;
