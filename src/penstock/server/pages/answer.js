// @ts-check
// An answer as it grows: native events folded into one plain value that can be stored and shown.
// Pure: the same entries give the same answer. Its cursor and its text change together, so that an
// answer that was kept at any moment goes on without a lost or doubled word.

/**
 * @typedef {{kind: "text" | "reasoning" | "refusal", text: string}} TextPart
 * @typedef {{kind: "tool", call: number, id: string, name: string, type: string, text: string}} ToolPart
 * @typedef {TextPart | ToolPart} Part
 */

/**
 * @typedef {object} End  How it ended, as the terminal entry says it; `status` may also be one of ours:
 *   `refused` (the request was not accepted), `gone` (the gateway has it no more), `unreadable`.
 * @property {string} status
 * @property {string} [code]
 * @property {string} [message]
 * @property {string} [fault]
 * @property {boolean} [retryable]
 * @property {number} [retry_after]
 * @property {number} [http_status]
 * @property {{first_output_ms?: number, total_ms?: number, max_gap_ms?: number}} [timing]
 * @property {number} [at]   when this page learnt it, milliseconds since 1970
 */

/**
 * @typedef {object} Answer
 * @property {string} stream
 * @property {string} cursor   what to resume after
 * @property {number} n        entries so far
 * @property {number} chunks   those with output
 * @property {string} model
 * @property {string} provider
 * @property {Part[]} parts
 * @property {{url: string, title: string}[]} sources
 * @property {string} finish
 * @property {Record<string, any> | null} usage
 * @property {End | null} end
 * @property {boolean} more    the provider gave further choices, which are not shown
 */

const MAX_SOURCES = 50;

/** @returns {Answer} */
export function newAnswer() {
  return {
    stream: "", cursor: "", n: 0, chunks: 0, model: "", provider: "", parts: [], sources: [],
    finish: "", usage: null, end: null, more: false,
  };
}

/** Forget what came, and not whose answer it is: the log is read from its start. @param {Answer} answer */
export function startOver(answer) {
  Object.assign(answer, newAnswer(), { stream: answer.stream });
}

/**
 * Add one entry. Returns the kind and the size of what it added to the answer, null when it is no output.
 * @param {Answer} answer @param {any} data @param {string} cursor
 * @returns {{kind: string, size: number} | null}
 */
export function addEntry(answer, data, cursor) {
  answer.n = data.n;
  answer.cursor = cursor;
  if (data.index) {
    answer.more = true;
    return null;
  }
  switch (data.type) {
    case "started":
      answer.model = data.model ?? "";
      answer.provider = data.provider ?? "";
      return null;
    case "text":
    case "reasoning":
    case "refusal": {
      const text = data.delta ?? "";
      if (!text) return null;
      const last = answer.parts.at(-1);
      if (last && last.kind === data.type) last.text += text;
      else answer.parts.push({ kind: data.type, text });
      answer.chunks += 1;
      return { kind: data.type, size: text.length };
    }
    case "tool_call": {
      let part = answer.parts.find((known) => known.kind === "tool" && known.call === data.call);
      if (!part || part.kind !== "tool") {
        part = { kind: "tool", call: data.call, id: "", name: "", type: data.kind ?? "function", text: "" };
        answer.parts.push(part);
      }
      part.id ||= data.id ?? "";
      part.name ||= data.name ?? "";
      part.text += data.delta ?? "";
      answer.chunks += 1;
      return { kind: "tool", size: (data.delta ?? data.name ?? "").length };
    }
    case "annotation": {
      const source = sourceOf(data.data);
      if (source && answer.sources.length < MAX_SOURCES && !answer.sources.some((s) => s.url === source.url)) {
        answer.sources.push(source);
      }
      return null;
    }
    case "usage":
      answer.usage = data;
      return null;
    case "finish":
      answer.finish = data.reason;
      return null;
    case "end":
      answer.end = endOf(data);
      if (data.usage) answer.usage = data.usage;
      return null;
  }
  return null;
}

/** @param {any} data @returns {End} */
function endOf(data) {
  const { status, code, message, fault, retryable, retry_after, http_status, timing } = data;
  return { status, code, message, fault, retryable, retry_after, http_status, timing, at: Date.now() };
}

/** A citation's address, wherever its dialect keeps it. @param {any} data */
function sourceOf(data) {
  const inner = data?.url_citation ?? data;
  const url = inner?.url ?? inner?.uri ?? inner?.source;
  if (typeof url !== "string" || !/^https?:\/\//i.test(url)) return null;
  return { url, title: String(inner.title ?? inner.document_title ?? url).slice(0, 200) };
}

/** The text alone, as it is copied and as it goes into the next request. @param {Answer} answer */
export function textOf(answer) {
  return answer.parts.filter((part) => part.kind === "text" || part.kind === "refusal").map((part) => part.text).join("\n\n");
}

/** @param {Answer} answer @returns {ToolPart[]} */
export function toolsOf(answer) {
  return /** @type {ToolPart[]} */ (answer.parts.filter((part) => part.kind === "tool"));
}
