// `@anthropic-ai/sdk`: Messages, with its helper.

import Anthropic from "@anthropic-ai/sdk";
import { QUESTION, WEATHER } from "./judging.mjs";

const { name, description, parameters } = WEATHER;
const clientOf = ({ url, fetch }) => new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0, fetch });
const asks = ({ model, calls }) => ({
  model,
  max_tokens: 1000,
  messages: [{ role: "user", content: QUESTION }],
  ...(calls && { tools: [{ name, description, input_schema: parameters }] }),
});

async function stream(question, seen) {
  const calls = [];
  for await (const event of await clientOf(question).messages.create({ ...asks(question), stream: true })) {
    const { type, content_block: block, delta } = event;
    if (type === "content_block_start" && block.type === "tool_use") calls.push([block.name, ""]);
    if (type === "content_block_delta") {
      if (delta.type === "input_json_delta") calls.at(-1)[1] += delta.partial_json;
      if (delta.type === "thinking_delta") seen.reasoning += delta.thinking;
      if (delta.type === "text_delta" && seen.say(delta.text) && question.stops) return;
    }
    if (type === "message_delta") {
      seen.reason = delta.stop_reason;
      seen.usage = [event.usage.input_tokens, event.usage.output_tokens];
    }
  }
  for (const [called, given] of calls) seen.call(called, given);
}

async function helper(question, seen) {
  const answer = clientOf(question).messages.stream(asks(question));
  answer.on("text", (piece) => {
    if (seen.say(piece) && question.stops) answer.abort();
  });
  message(await answer.finalMessage(), seen);
}

async function whole(question, seen) {
  const { signal } = question;
  message(await clientOf(question).messages.create(asks(question), { signal }), seen);
}

function message({ content, stop_reason, usage }, seen) {
  seen.text = "";
  seen.reason = stop_reason;
  seen.usage = [usage.input_tokens, usage.output_tokens];
  for (const block of content) {
    if (block.type === "text") seen.text += block.text;
    if (block.type === "thinking") seen.reasoning += block.thinking;
    if (block.type === "tool_use") seen.call(block.name, block.input);
  }
}

export const ways = { stream, helper, whole };
