// All judges in JavaScript.

import NewestOpenAI from "openai";
import OldOpenAI from "openai-6";
import * as ai from "./ai_sdk.mjs";
import { ways as anthropic } from "./anthropic.mjs";
import { ways as fetching } from "./fetch.mjs";
import { main } from "./judging.mjs";
import * as ollama from "./ollama.mjs";
import { waysOf } from "./openai.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const [old, newest] = [waysOf(OldOpenAI), waysOf(NewestOpenAI)];

await main({
  "old openai-node chat": old.chat,
  "old openai-node responses": old.responses,
  "openai-node chat": newest.chat,
  "openai-node responses": newest.responses,
  "anthropic-node": anthropic,
  fetch: fetching,
  "ollama-node chat": ollama.chat,
  "ollama-node generate": ollama.generate,
  "ai compatible": ai.compatible,
  "ai openai responses": ai.openai,
  "ai openai chat": ai.openaiChat,
  "ai anthropic": ai.anthropic,
});
