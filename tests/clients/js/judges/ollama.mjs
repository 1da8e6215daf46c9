// `ollama` for JavaScript: chat and generate, streamed and whole.

import { Ollama } from "ollama";
import { ENOUGH, QUESTION, WEATHER } from "./judging.mjs";

const clientOf = ({ url, fetch }) => new Ollama({ host: url, fetch });
const asks = ({ model, calls }) => ({
  model,
  messages: [{ role: "user", content: QUESTION }],
  ...(calls && { tools: [{ type: "function", function: WEATHER }] }),
});

function note(answer, seen) {
  const { content, thinking, tool_calls } = answer.message ?? { ...answer, content: answer.response };
  seen.say(content);
  seen.reasoning += thinking ?? "";
  for (const call of tool_calls ?? []) seen.call(call.function.name, call.function.arguments);
  if (answer.done) {
    seen.reason = answer.done_reason;
    seen.usage = [answer.prompt_eval_count, answer.eval_count];
  }
}

const streaming = (method, request) => async (question, seen) => {
  const client = clientOf(question);
  for await (const answer of await client[method]({ ...request(question), stream: true })) {
    note(answer, seen);
    if (seen.pieces >= ENOUGH && question.stops) return client.abort();
  }
};

const whole = (method, request) => async (question, seen) => {
  const client = clientOf({ ...question, fetch: (url, init) => question.fetch(url, { ...init, signal }) });
  const { signal } = question;
  note(await client[method](request(question)), seen);
};

const prompts = ({ model }) => ({ model, prompt: QUESTION });

export const chat = { stream: streaming("chat", asks), whole: whole("chat", asks) };
export const generate = { stream: streaming("generate", prompts), whole: whole("generate", prompts) };
