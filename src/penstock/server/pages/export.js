// @ts-check
// A conversation as a file: Markdown to read, JSON with all versions to keep. Pure.

import { textOf, toolsOf } from "./answer.js";
import { t } from "./i18n.js";

/** @param {string} title @param {import("./library.js").Node[]} path what is shown */
export function markdownOf(title, path) {
  const parts = [`# ${title}`];
  for (const node of path) {
    if (node.role === "user") {
      parts.push(`## ${t("you")}`, node.text);
      continue;
    }
    parts.push(`## ${node.answer.model || node.model}`);
    for (const tool of toolsOf(node.answer)) parts.push(`\`\`\`json\n${JSON.stringify({ tool: tool.name, arguments: tool.text })}\n\`\`\``);
    parts.push(textOf(node.answer));
    const end = node.answer.end;
    if (end && end.status !== "completed") parts.push(`*${end.status}${end.message ? `: ${end.message}` : ""}*`);
  }
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

/** @param {import("./library.js").Conversation} conversation @param {import("./library.js").Node[]} nodes all of them */
export function jsonOf(conversation, nodes) {
  const kept = nodes.map((node) => (node.role === "answer" ? { ...node, key: undefined, body: undefined } : node));
  return `${JSON.stringify({ format: "penstock-conversation", version: 1, conversation, nodes: kept }, null, 2)}\n`;
}

/** A name for a file. @param {string} title */
export function fileNameOf(title) {
  return title.replace(/[^\p{L}\p{N} _.-]+/gu, "").trim().slice(0, 60) || "conversation";
}
