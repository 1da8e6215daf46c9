"""The client without ``await``: `penstock.client.answers`, each step of it run in a loop of its own.

For scripts, notebooks' cells and threads. Not inside a running event loop: that is what `AsyncClient` is
for. A client is its thread's alone; nothing goes on between two calls.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from penstock.client.addresses import DEFAULT_URL
from penstock.client.answers import Answer, AsyncClient, Entry, Link, Listed, Listener
from penstock.client.connection import Ended, Model
from penstock.client.credentials import Token
from penstock.types.events import Closed, UsageReported

T = TypeVar("T")


class _Handler:
    """One of the handlers of an `Answer`."""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: "BlockingAnswer", _: type) -> Any:
        return getattr(owner._answer, self._name)

    def __set__(self, owner: "BlockingAnswer", handler: Any) -> None:
        setattr(owner._answer, self._name, handler)


class BlockingAnswer:
    """As `Answer`."""

    on_open = _Handler()
    on_message = _Handler()
    on_close = _Handler()
    on_error = _Handler()

    def __init__(self, runner: asyncio.Runner, answer: Answer) -> None:
        """Made by `Client`."""
        self._runner = runner
        self._answer = answer

    def __repr__(self) -> str:
        """As the other."""
        return repr(self._answer)

    @property
    def stream(self) -> str:
        """Its id, once that is known."""
        return self._answer.stream

    @property
    def cursor(self) -> str:
        """The position after what was read."""
        return self._answer.cursor

    @property
    def so_far(self) -> str:
        """The text that was read."""
        return self._answer.so_far

    @property
    def usage(self) -> UsageReported | None:
        """Tokens, as reported last."""
        return self._answer.usage

    @property
    def closed(self) -> Closed | None:
        """The terminal entry, once it was read."""
        return self._answer.closed

    def __iter__(self) -> Iterator[Entry]:
        """Yield entries to the last one."""
        return self._each(aiter(self._answer))

    def text(self) -> Iterator[str]:
        """Yield the text piece by piece."""
        return self._each(self._answer.text())

    def end(self) -> Closed:
        """Read to the end, and return the terminal entry."""
        return self._runner.run(self._answer.end())

    def stop(self) -> Ended:
        """Stop the generation."""
        return self._runner.run(self._answer.stop())

    def close(self) -> None:
        """Read no more. This stops nothing."""
        self._runner.run(self._answer.aclose())

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> T:
            return await anext(items)

        while True:
            try:
                item = self._runner.run(step())
            except StopAsyncIteration:
                return
            yield item


class Client:
    """As `AsyncClient`; used as a context manager."""

    def __init__(self, url: str = DEFAULT_URL, key: str | Token = "", **how: Any) -> None:
        """See `AsyncClient`."""
        self._client = AsyncClient(url, key, **how)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        """Nothing is opened before it is needed."""
        self._run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open. Generations go on."""
        try:
            self._run(self._client.__aexit__())
        finally:
            self._runner.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def ask(self, content: str, model: str, **more: Any) -> BlockingAnswer:
        """See `AsyncClient.ask`."""
        return BlockingAnswer(self._runner, self._client.ask(content, model, **more))

    def start(self, request: Mapping[str, Any], **more: Any) -> BlockingAnswer:
        """See `AsyncClient.start`."""
        return BlockingAnswer(self._runner, self._client.start(request, **more))

    def follow(self, stream: str, after: str = "", *, listener: Listener | None = None) -> BlockingAnswer:
        """See `AsyncClient.follow`."""
        return BlockingAnswer(self._runner, self._client.follow(stream, after, listener=listener))

    def models(self) -> list[Model]:
        """Return the models that can be asked for."""
        return self._run(self._client.models())

    def streams(self, limit: int = 20, before: str = "") -> Sequence[Listed]:
        """Return one's own streams, newest first."""
        return self._run(self._client.streams(limit, before))

    def snapshot(self, stream: str) -> dict[str, Any]:
        """Return a stream's state, and its answer so far."""
        return self._run(self._client.snapshot(stream))

    def stop(self, stream: str) -> Ended:
        """Stop a generation."""
        return self._run(self._client.stop(stream))

    def stop_key(self, key: str) -> Ended:
        """As `stop`, by idempotency key."""
        return self._run(self._client.stop_key(key))

    def erase(self, stream: str) -> None:
        """Stop a generation if it is open, and erase what is stored of it."""
        self._run(self._client.erase(stream))

    def link(self, stream: str, scope: Literal["read", "cancel"] = "read", ttl: float = 3600.0) -> Link:
        """Make a signed link."""
        return self._run(self._client.link(stream, scope, ttl))
