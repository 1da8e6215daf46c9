"""Ask the gateway with OpenAI's Python SDK: only the base URL is not OpenAI's."""

import os

from openai import OpenAI

base_url = os.environ.get("OPENAI_BASE_URL", "http://localhost:8080/v1")
client = OpenAI(base_url=base_url, api_key=os.environ.get("PENSTOCK_KEY", "unused"))

chunks = client.chat.completions.create(
    model="demo", messages=[{"role": "user", "content": "Hello"}], stream=True
)
for chunk in chunks:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
