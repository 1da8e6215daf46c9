// Ask the gateway with OpenAI's Node SDK: only the base URL is not OpenAI's.

import OpenAI from "openai";

const baseURL = process.env.OPENAI_BASE_URL ?? "http://localhost:8080/v1";
const client = new OpenAI({ baseURL, apiKey: process.env.PENSTOCK_KEY ?? "unused" });

const chunks = await client.chat.completions.create({
  model: "demo",
  messages: [{ role: "user", content: "Hello" }],
  stream: true,
});
for await (const chunk of chunks) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
console.log();
