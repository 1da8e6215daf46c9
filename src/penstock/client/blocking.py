"""The client without ``await``: `penstock.client.answers`, each step of it run in a loop of its own.

For scripts, notebooks and threads. The loop has a thread to itself, which begins with the first call: so a
client can be used where another loop runs, as in a notebook's cell, and by several threads at once, and a
WebSocket is kept alive between two calls. Handlers and listeners are called in that thread while the
caller waits; they must not call the client.
"""

import asyncio
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, Final, Literal, Self, TypeVar

from penstock.client.addresses import DEFAULT_URL
from penstock.client.answers import Answer, AsyncClient, Entry, Link, Listed, Listener, Transport
from penstock.client.connection import Ended, Model, backoff
from penstock.client.credentials import Token
from penstock.types.events import Closed, UsageReported

T = TypeVar("T")

DEPTH: Final = 4
"""Generators within each other that may be left in mid-way."""

SETTLE: Final = 0.5
"""Seconds that each of them may take to end."""


class Loop:
    """An event loop in a thread of its own. It ends when nobody has this any more, or with the program."""

    def __init__(self) -> None:
        """Nothing runs before something is to be done."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` there and return its result; it is cancelled when the caller is interrupted.

        Raises `RuntimeError` when it is closed, or called from its own thread.
        """
        try:
            loop = self._started()
        except RuntimeError:
            work.close()
            raise
        doing = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return doing.result()
        except CancelledError:
            raise RuntimeError("the client was closed meanwhile") from None
        except BaseException:
            doing.cancel()
            raise

    def close(self) -> None:
        """End what runs, and the thread."""
        self._closed = True
        if self._loop is not None and self._thread is not None:
            _end(self._loop, self._thread)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._thread is threading.current_thread():
                raise RuntimeError("a handler cannot call the client that called it")
            if self._loop is None and not self._closed:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_live, args=(self._loop,), name="penstock-client", daemon=True
                )
                self._thread.start()
                weakref.finalize(self, _end, self._loop, self._thread)
            if self._closed or self._loop is None or self._thread is None or not self._thread.is_alive():
                raise RuntimeError("the client is closed, or was made before this process was forked")
            return self._loop


def _live(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:  # which, at its end, cancels what is left
        runner.get_loop().run_forever()
        runner.run(_settled())


async def _settled() -> None:
    """Let what was left in mid-way end from the outside in: each generator's end begins that of the next."""
    for _ in range(DEPTH):
        await asyncio.sleep(0)
        if closing := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(closing, timeout=SETTLE)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with suppress(RuntimeError):  # it has ended
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join()


class _Handler:
    """One of the handlers of an `Answer`."""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: "BlockingAnswer", _: type) -> Any:
        return getattr(owner._answer, self._name)

    def __set__(self, owner: "BlockingAnswer", handler: Any) -> None:
        setattr(owner._answer, self._name, handler)


class BlockingAnswer:
    """As `Answer`; read by one thread."""

    on_open = _Handler()
    on_message = _Handler()
    on_close = _Handler()
    on_error = _Handler()

    def __init__(self, loop: Loop, answer: Answer) -> None:
        """Made by `Client`."""
        self._loop = loop
        self._answer = answer

    def __repr__(self) -> str:
        """As the other."""
        return repr(self._answer)

    def __enter__(self) -> Self:
        """Nothing is asked before something is read."""
        return self

    def __exit__(self, *_: object) -> None:
        """Read no more."""
        self.close()

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
        return self._each(self._answer.__aiter__())

    def text(self) -> Iterator[str]:
        """Yield the text piece by piece."""
        return self._each(self._answer.text())

    def end(self) -> Closed:
        """Read to the end, and return the terminal entry."""
        return self._loop.run(self._answer.end())

    def stop(self) -> Ended:
        """Stop the generation; any thread may."""
        return self._loop.run(self._answer.stop())

    def close(self) -> None:
        """Read no more. This stops nothing."""
        self._loop.run(self._answer.aclose())

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> T:
            return await anext(items)

        while True:
            try:
                item = self._loop.run(step())
            except StopAsyncIteration:
                return
            yield item


class Client:
    """As `AsyncClient`; used as a context manager, or closed with `close`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | Token = "",
        *,
        transport: Transport = "sse",
        patience: float = 120.0,
        wait: Callable[[int], float] = backoff,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """See `AsyncClient`."""
        self._client = AsyncClient(
            url, key, transport=transport, patience=patience, wait=wait, headers=headers, tls=tls
        )
        self._loop = Loop()

    def __enter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open. Generations go on."""
        self.close()

    def close(self) -> None:
        """Close what is open. Generations go on."""
        try:
            with suppress(RuntimeError):  # closed before
                self._loop.run(self._client.aclose())
        finally:
            self._loop.close()

    def ask(
        self, content: str, model: str, *, system: str = "", listener: Listener | None = None
    ) -> BlockingAnswer:
        """See `AsyncClient.ask`."""
        answer = self._client.ask(content, model, system=system, listener=listener)
        return BlockingAnswer(self._loop, answer)

    def start(
        self,
        request: Mapping[str, Any],
        *,
        dialect: str = "openai_chat",
        idempotency_key: str = "",
        ttl: float | None = None,
        on_disconnect: str = "",
        metadata: Mapping[str, str] | None = None,
        listener: Listener | None = None,
    ) -> BlockingAnswer:
        """See `AsyncClient.start`."""
        answer = self._client.start(
            request,
            dialect=dialect,
            idempotency_key=idempotency_key,
            ttl=ttl,
            on_disconnect=on_disconnect,
            metadata=metadata,
            listener=listener,
        )
        return BlockingAnswer(self._loop, answer)

    def follow(self, stream: str, after: str = "", *, listener: Listener | None = None) -> BlockingAnswer:
        """See `AsyncClient.follow`."""
        return BlockingAnswer(self._loop, self._client.follow(stream, after, listener=listener))

    def models(self) -> list[Model]:
        """Return the models that can be asked for."""
        return self._loop.run(self._client.models())

    def streams(self, limit: int = 20, before: str = "") -> Sequence[Listed]:
        """Return one's own streams, newest first."""
        return self._loop.run(self._client.streams(limit, before))

    def snapshot(self, stream: str) -> dict[str, Any]:
        """Return a stream's state, and its answer so far."""
        return self._loop.run(self._client.snapshot(stream))

    def stop(self, stream: str) -> Ended:
        """Stop a generation."""
        return self._loop.run(self._client.stop(stream))

    def stop_key(self, key: str) -> Ended:
        """As `stop`, by idempotency key."""
        return self._loop.run(self._client.stop_key(key))

    def erase(self, stream: str) -> None:
        """Stop a generation if it is open, and erase what is stored of it."""
        self._loop.run(self._client.erase(stream))

    def link(self, stream: str, scope: Literal["read", "cancel"] = "read", ttl: float = 3600.0) -> Link:
        """Make a signed link."""
        return self._loop.run(self._client.link(stream, scope, ttl))
