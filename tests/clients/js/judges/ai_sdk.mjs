// Vercel's `ai` with its providers: streamText by its parts and by its promises, and generateText.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import { QUESTION, WEATHER } from "./judging.mjs";

const { description, parameters } = WEATHER;
const tools = { get_weather: tool({ description, inputSchema: jsonSchema(parameters) }) };

function waysOf(modelOf) {
  const asks = (question, abortSignal) => ({
    model: modelOf(question),
    prompt: QUESTION,
    maxRetries: 0,
    abortSignal,
    ...(question.calls && { tools }),
  });

  async function stream(question, seen) {
    const abort = new AbortController();
    const answer = streamText({ ...asks(question, abort.signal), onError() {} });
    for await (const part of answer.fullStream) {
      if (part.type === "text-delta" && seen.say(part.text) && question.stops) return abort.abort();
      if (part.type === "reasoning-delta") seen.reasoning += part.text;
      if (part.type === "tool-call") seen.call(part.toolName, part.input);
      if (part.type === "error") seen.fail(part.error);
      if (part.type === "finish" && part.finishReason !== "error") {
        seen.reason = part.finishReason;
        seen.usage = [part.totalUsage.inputTokens, part.totalUsage.outputTokens];
      }
    }
  }

  async function helper(question, seen) {
    const abort = new AbortController();
    const answer = streamText({ ...asks(question, abort.signal), onError: ({ error }) => seen.fail(error) });
    for await (const piece of answer.textStream) {
      if (seen.say(piece) && question.stops) return abort.abort();
    }
    if (!seen.error) await note(answer, seen);
  }

  async function whole(question, seen) {
    await note(await generateText(asks(question, question.signal)), seen);
  }

  async function note(answer, seen) {
    seen.text = await answer.text;
    seen.reasoning = (await answer.reasoningText) ?? "";
    for (const call of await answer.toolCalls) seen.call(call.toolName, call.input);
    seen.reason = await answer.finishReason;
    const { inputTokens, outputTokens } = await answer.usage;
    seen.usage = [inputTokens, outputTokens];
  }

  return { stream, helper, whole };
}

const settings = ({ url, fetch }) => ({ baseURL: `${url}/v1`, apiKey: "unused", fetch });

export const compatible = waysOf((question) =>
  createOpenAICompatible({ ...settings(question), name: "penstock", includeUsage: true })(question.model),
);
export const openai = waysOf((question) => createOpenAI(settings(question))(question.model));
export const openaiChat = waysOf((question) => createOpenAI(settings(question)).chat(question.model));
export const anthropic = waysOf((question) => createAnthropic(settings(question))(question.model));
