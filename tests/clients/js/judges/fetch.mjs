// No SDK: `fetch`, and a page that is busy with what it was given before it reads on.

import { setTimeout as sleep } from "node:timers/promises";
import { QUESTION, WEATHER } from "./judging.mjs";

const BUSY = 50;

function ask(question, stream) {
  const body = {
    model: question.model,
    messages: [{ role: "user", content: QUESTION }],
    stream,
    ...(stream && { stream_options: { include_usage: true } }),
    ...(question.calls && { tools: [{ type: "function", function: WEATHER }] }),
  };
  const headers = { "content-type": "application/json" };
  const signal = stream ? undefined : question.signal;
  const init = { method: "POST", headers, body: JSON.stringify(body), signal };
  return question.fetch(`${question.url}/v1/chat/completions`, init);
}

async function stream(question, seen) {
  const response = await ask(question, true);
  if (!response.ok) throw (await response.json()).error;
  const calls = [];
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let got = await reader.read(); !got.done; got = await reader.read()) {
    const events = (rest + got.value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
      const { error, choices, usage } = JSON.parse(event.slice(6));
      if (error) throw error;
      for (const { delta, finish_reason } of choices) {
        seen.reasoning += delta.reasoning_content ?? "";
        seen.reason = finish_reason ?? seen.reason;
        for (const piece of delta.tool_calls ?? []) {
          const call = (calls[piece.index] ??= ["", ""]);
          call[0] += piece.function.name ?? "";
          call[1] += piece.function.arguments ?? "";
        }
        if (seen.say(delta.content) && question.stops) return reader.cancel();
      }
      if (usage) seen.usage = [usage.prompt_tokens, usage.completion_tokens];
    }
    await sleep(BUSY);
  }
  for (const [name, given] of calls) seen.call(name, given);
}

async function whole(question, seen) {
  const response = await ask(question, false);
  const { error, choices, usage } = await response.json();
  if (error) throw error;
  const [{ message, finish_reason }] = choices;
  seen.text = message.content ?? "";
  seen.reasoning = message.reasoning_content ?? "";
  for (const call of message.tool_calls ?? []) seen.call(call.function.name, call.function.arguments);
  seen.reason = finish_reason;
  seen.usage = [usage.prompt_tokens, usage.completion_tokens];
}

export const ways = { stream, whole };
