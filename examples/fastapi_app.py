"""A FastAPI application with Penstock below ``/llm``: one process, one port, and routes of its own."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from penstock import Penstock

PAGE = """<!doctype html>
<title>A host of Penstock</title>
<form><input name="content" value="Hello" aria-label="Your message" required> <button>Ask</button></form>
<pre id="answer"></pre>
<script>
  const answer = document.getElementById("answer");
  document.forms[0].onsubmit = async (event) => {
    event.preventDefault();
    const asked = new URLSearchParams(new FormData(event.target));
    const { stream } = await (await fetch(`ask?${asked}`, { method: "POST" })).json();
    answer.textContent = "";
    const source = new EventSource(`llm/v1/streams/${stream}/events?dialect=text`);
    source.onmessage = (event) => (answer.textContent += event.data);
    source.addEventListener("done", () => source.close());
    source.addEventListener("fail", (event) => {
      source.close();
      answer.textContent += "\\n" + JSON.parse(event.data).message;
    });
  };
</script>
"""

# The defaults and the environment; `Penstock.from_file("penstock.yaml")` reads a file first.
penstock = Penstock()
app = FastAPI(lifespan=penstock.lifespan)
app.mount("/llm", penstock)


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Show the page."""
    return PAGE


@app.post("/ask")
async def ask(content: str) -> dict[str, str]:
    """Start an answer in Python; the page reads it by its stream."""
    generation = await penstock.start(content)
    return {"stream": generation.id}
