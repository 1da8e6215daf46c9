// @ts-check
// What is sent to the gateway, made from a conversation; and the same as a line for a shell. Pure.

import { textOf, toolsOf } from "./answer.js";

/** Settings of the embedded models, sent to no other. */
export const SCRIPT = "penstock_script";

/** @param {string} model */
export function isDemo(model) {
  return model === "demo" || model.startsWith("demo-");
}

/**
 * @param {import("./library.js").Node[]} path   up to the question that is to be answered
 * @param {string} model
 * @param {import("./preferences.js").Settings} settings
 * @param {Record<string, number>} script
 * @returns {object} the body of `POST /v1/streams`
 */
export function requestOf(path, model, settings, script) {
  /** @type {any[]} */
  const messages = [];
  if (settings.system) messages.push({ role: "system", content: settings.system });
  for (const node of path) {
    if (node.role === "answer") {
      const calls = toolsOf(node.answer).map((tool) => ({
        id: tool.id || `call_${tool.call}`,
        type: "function",
        function: { name: tool.name, arguments: tool.text },
      }));
      const answered = calls.length && path[path.indexOf(node) + 1]?.role === "user" && resultsOf(path[path.indexOf(node) + 1]);
      const content = textOf(node.answer);
      if (answered) messages.push({ role: "assistant", content: content || null, tool_calls: calls });
      else if (content) messages.push({ role: "assistant", content });
    } else if (node.results) {
      for (const { id, text } of node.results) messages.push({ role: "tool", tool_call_id: id, content: text });
    } else messages.push({ role: "user", content: node.text });
  }
  const { system: _, ...sampling } = settings;
  const request = { model, messages, ...sampling };
  if (isDemo(model) && Object.keys(script).length) Object.assign(request, { [SCRIPT]: script });
  return { request };
}

/** @param {import("./library.js").Node} node */
function resultsOf(node) {
  return node.role === "user" ? node.results : undefined;
}

/** A line for a shell that asks for the same. The key is never in it. @param {string} url @param {object} body @param {boolean} keyed */
export function curlOf(url, body, keyed) {
  const quoted = `'${JSON.stringify(body, null, 2).replaceAll("'", "'\\''")}'`;
  const key = keyed ? ' \\\n  -H "Authorization: Bearer $PENSTOCK_KEY"' : "";
  return `curl -N '${url}'${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted}`;
}
