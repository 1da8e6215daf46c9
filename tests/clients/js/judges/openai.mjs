// `openai` for Node: Chat Completions and Responses, with its helpers.

import { QUESTION, WEATHER } from "./judging.mjs";

export function waysOf(OpenAI) {
  const clientOf = ({ url, fetch }) =>
    new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0, fetch });
  const asks = ({ model, calls }, more) => ({
    model,
    messages: [{ role: "user", content: QUESTION }],
    ...(calls && { tools: [{ type: "function", function: WEATHER }] }),
    ...more,
  });
  const puts = ({ model, calls }, more) => ({
    model,
    input: QUESTION,
    ...(calls && { tools: [{ type: "function", strict: false, ...WEATHER }] }),
    ...more,
  });

  async function chatStream(question, seen) {
    const calls = [];
    const asked = asks(question, { stream: true, stream_options: { include_usage: true } });
    for await (const chunk of await clientOf(question).chat.completions.create(asked)) {
      for (const { delta, finish_reason } of chunk.choices) {
        seen.reasoning += delta.reasoning_content ?? "";
        seen.reason = finish_reason ?? seen.reason;
        for (const piece of delta.tool_calls ?? []) {
          const call = (calls[piece.index] ??= ["", ""]);
          call[0] += piece.function.name ?? "";
          call[1] += piece.function.arguments ?? "";
        }
        if (seen.say(delta.content) && question.stops) return;
      }
      if (chunk.usage) seen.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
    }
    for (const [name, given] of calls) seen.call(name, given);
  }

  async function chatHelper(question, seen) {
    const asked = asks(question, { stream_options: { include_usage: true } });
    const stream = clientOf(question).chat.completions.stream(asked);
    stream.on("content", (piece) => {
      if (seen.say(piece) && question.stops) stream.abort();
    });
    completion(await stream.finalChatCompletion(), seen);
  }

  async function chatWhole(question, seen) {
    const { signal } = question;
    completion(await clientOf(question).chat.completions.create(asks(question), { signal }), seen);
  }

  function completion({ choices: [{ message, finish_reason }], usage }, seen) {
    seen.text = message.content ?? "";
    seen.reason = finish_reason;
    seen.reasoning = message.reasoning_content ?? "";
    for (const call of message.tool_calls ?? []) seen.call(call.function.name, call.function.arguments);
    seen.usage = usage ? [usage.prompt_tokens, usage.completion_tokens] : null;
  }

  async function responsesStream(question, seen) {
    for await (const event of await clientOf(question).responses.create(puts(question, { stream: true }))) {
      if (event.type === "response.output_text.delta" && seen.say(event.delta) && question.stops) return;
      if (event.type === "response.completed") response(event.response, seen);
      if (event.type === "response.failed") seen.fail(event.response.error);
    }
  }

  async function responsesHelper(question, seen) {
    const stream = clientOf(question).responses.stream(puts(question));
    stream.on("response.output_text.delta", (event) => {
      if (seen.say(event.delta) && question.stops) stream.abort();
    });
    response(await stream.finalResponse(), seen);
  }

  async function responsesWhole(question, seen) {
    const { signal } = question;
    response(await clientOf(question).responses.create(puts(question), { signal }), seen);
  }

  function response({ output, output_text, status, usage, error }, seen) {
    if (error) throw error;
    seen.text = output_text ?? seen.text;
    seen.reason = status;
    seen.usage = [usage.input_tokens, usage.output_tokens];
    for (const item of output) {
      if (item.type === "function_call") seen.call(item.name, item.arguments);
      if (item.type === "reasoning") seen.reasoning += item.summary.map(({ text }) => text).join("");
    }
  }

  return {
    chat: { stream: chatStream, helper: chatHelper, whole: chatWhole },
    responses: { stream: responsesStream, helper: responsesHelper, whole: responsesWhole },
  };
}
