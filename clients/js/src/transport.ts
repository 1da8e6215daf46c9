// How a stream reaches its reader: what is asked of a connection, and what comes out of it. Each way
// (fetch, XMLHttpRequest, WebSocket) carries one connection from its start to its loss; what a loss means
// is for the reader (stream.ts) to decide.

/** A generation to be started; the same for every attempt, so that it is paid once. */
export interface Creation {
  key: string;
  /** Of an HTTP request. */
  method: "GET" | "POST";
  path: string;
  body?: string;
  /** The members of a WebSocket's `create`; absent where only HTTP has the route. */
  message?: Record<string, unknown>;
}

/** Where the reader stands: without a stream, `creation` is asked for. */
export interface Ask {
  creation: Creation | undefined;
  stream: string;
  cursor: string;
}

/** The reader's end of a connection. What it throws ends the connection. */
export interface Sink {
  /** A sign of life; `only`: it says nothing else. */
  heard(only?: boolean): void;
  /** `tail`: entries that there are. `heartbeat`: seconds between two of them, 0 where that is not said. */
  opened(stream: string, tail?: number, heartbeat?: number): void;
  /** An entry: its record, byte for byte, and the cursor after it. */
  entry(record: string, cursor: string): void;
  /** The read cannot go on: a `fail` that is no entry. */
  failed(code: string, message: string, retryable: boolean): void;
  /** Undefined while more can be taken; else when. */
  ready(): Promise<void> | undefined;
}

/** `ended`: no more comes on this connection. `nothing`: the log ends at the cursor. `again`: go on at once
 * on another connection. */
export type Outcome = "ended" | "nothing" | "again";

export interface Transport {
  /** Carry one connection; rejects with a `PenstockError` when refused, with anything else when lost. */
  carry(ask: Ask, sink: Sink, signal: AbortSignal): Promise<Outcome>;
  close(): void;
}
