// OpenAI's Node SDK before a silent model: node silence.mjs BASE_URL QUESTION… asks each question in one of
// three ways (as it is; so that ids come, by Accept and by query) and prints the answers' texts as JSON.

import OpenAI from "openai";

const [baseURL, ...questions] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const WAYS = [{}, { headers: { Accept: "text/event-stream" } }, { query: { ids: "1" } }];

async function read(content, options) {
  const request = { model: "torture", messages: [{ role: "user", content }], stream: true };
  let text = "";
  for await (const chunk of await client.chat.completions.create(request, options)) {
    text += chunk.choices[0]?.delta.content ?? "";
  }
  return text;
}

const texts = await Promise.all(questions.map((question, n) => read(question, WAYS[n % WAYS.length])));
process.stdout.write(JSON.stringify(texts));
