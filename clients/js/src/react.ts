// A React hook: the text and the state of one stream.

import { useCallback, useEffect, useRef, useState } from "react";
import type { End } from "./events.js";
import type { PenstockError } from "./errors.js";
import type { Phase, Stream } from "./stream.js";

export interface StreamState {
  text: string;
  phase: Phase | "idle";
  end: End | undefined;
  error: PenstockError | undefined;
  /** Connections lost so far. */
  losses: number;
}

const IDLE: StreamState = { text: "", phase: "idle", end: undefined, error: undefined, losses: 0 };

/** `follow(client.ask("…"))` shows a stream in place of the one before; `stop` stops the model. A component
 * that is taken away stops reading, and the answer goes on: read it again by its id. */
export function useStream(): StreamState & { follow: (stream: Stream) => Stream; stop: () => Promise<void> } {
  const [state, setState] = useState(IDLE);
  const current = useRef<Stream | null>(null);
  const follow = useCallback((stream: Stream) => {
    current.current?.close();
    current.current = stream;
    let asked = false;
    const show = () => {
      asked = false;
      if (current.current !== stream) return;
      const { text, phase, end, error, losses } = stream;
      setState({ text, phase, end, error, losses });
    };
    // Many entries come in one turn: they are shown once.
    const soon = () => {
      if (!asked) setTimeout(show);
      asked = true;
    };
    stream.onopen = stream.onmessage = stream.onretry = stream.onclose = soon;
    show();
    return stream;
  }, []);
  // It is handed to buttons, which wait for no promise: what is refused is shown.
  const stop = useCallback(async () => {
    try {
      await current.current?.stop();
    } catch (error) {
      if (current.current) setState((before) => ({ ...before, error: error as PenstockError }));
    }
  }, []);
  useEffect(
    () => () => {
      current.current?.close();
      current.current = null;
    },
    [],
  );
  return { ...state, follow, stop };
}
