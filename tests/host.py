"""A host for test_embedding.py: FastAPI, a middleware that takes bodies apart, Penstock below ``/llm``."""

import os

from fastapi import FastAPI, Request

from penstock import Penstock

penstock = Penstock.from_file(os.environ["HOST_CONFIG"])
app = FastAPI(lifespan=penstock.lifespan)


@app.middleware("http")
async def stamp(request: Request, call_next):
    """`BaseHTTPMiddleware`: carries a body on through a queue of its own."""
    response = await call_next(request)
    response.headers["x-host"] = "stamped"
    return response


@app.get("/hello")
async def hello() -> str:
    return "a route of the host's own"


app.mount("/llm", penstock)
