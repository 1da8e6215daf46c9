"""An ASGI application for the tests of the upstream client, run by uvicorn in a process of its own."""


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    more, body = True, b""
    while more:
        message = await receive()
        more, body = message.get("more_body", False), body + message.get("body", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-length", b"%d" % len(body))]})
    for count in range(20):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % count, "more_body": True})
    if scope["path"] == "/fail":
        raise RuntimeError("meant to be")
    await send({"type": "http.response.body", "body": b""})
