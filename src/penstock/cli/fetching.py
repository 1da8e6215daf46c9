"""Reading a publication on the command line: to the terminal, to a pipe, to a file."""

import asyncio
import base64
import codecs
import hashlib
import sys
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from penstock.cli import exits
from penstock.cli.exits import Failure
from penstock.cli.output import harmless
from penstock.cli.publish import progress, tell_lost
from penstock.cli.publishing import About, about, pages
from penstock.client.addresses import DEFAULT_URL, Address, address_of
from penstock.client.connection import Connection
from penstock.types.errors import ClientError
from penstock.wire.durable_streams import parse_offset

_ROOT: Final = "/v1/stream/"
_IDS: Final = ("s_", "chatcmpl-", "cmpl-", "resp_", "msg_")

_messages: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def publication_of(text: str, default: Address) -> tuple[Address, str] | None:
    """Return where a publication is that ``text`` names, by its path or URL; None when it names none."""
    text = text.strip()
    if "://" not in text:
        named = text and "~" not in text and not text.startswith(_IDS)
        return (default, text) if named else None
    parts = urlsplit(text)
    prefix, found, path = parts.path.partition(_ROOT)
    if not found or path.startswith("gen/"):
        return None
    at = address_of(f"{parts.scheme}://{parts.netloc}{prefix}")
    # A key is for the gateway it was given for; an address in a link may be anybody's.
    key = default.key if at.base == default.base else ""
    token = parse_qs(parts.query).get("token", [""])[0]
    return Address(at.base, key, token), unquote(path)


async def fetch(connection: Connection, path: str, start: str, output: Path | None, *, follow: bool) -> int:
    """Write content from ``start`` on, until the publication is closed, or (not ``follow``) to its tail."""
    offset = {"": "-1", "start": "-1"}.get(start, start)
    try:
        parse_offset(offset)
    except ClientError:
        message = "--from takes an offset (what was printed when reading stopped), 'start' or 'now'."
        raise Failure(message, code=exits.USAGE) from None
    known = await about(connection, path)
    kind = known.content_type.split(";")[0].strip().lower()
    on_terminal = output is None and sys.stdout.isatty()
    if on_terminal and kind != "application/json" and not kind.startswith("text/"):
        hint = f"Write it to a file with --output, or into a pipe: penstock read {path} | …"
        raise Failure(f"{path} is {kind}, which a terminal cannot show.", code=exits.USAGE, hint=hint)
    digest, size, at_tail, closed = hashlib.sha256(), 0, False, False
    try:
        with ExitStack() as stack:
            advance: Callable[[int], None] = _nothing
            if output is not None:
                write: Callable[[bytes], object] = stack.enter_context(output.open("wb")).write
                advance = stack.enter_context(progress(path, known.size))
            else:
                write = _to_terminal() if on_terminal else _to_pipe
            async with aclosing(pages(connection, path, offset, tell_lost)) as coming:
                async for page in coming:
                    if page.gap:
                        print("penstock: what came before this is gone.", file=sys.stderr)
                    if page.content:
                        digest.update(page.content)
                        size += len(page.content)
                        write(_lines(page.content) if kind == "application/json" else page.content)
                        advance(len(page.content))
                    offset, at_tail, closed = page.offset, page.at_tail, page.closed
                    if at_tail and not follow:
                        break
    except OSError as error:
        if output is None or isinstance(error, BrokenPipeError):
            raise
        raise Failure(f"{output} cannot be written: {error.strerror}.", code=exits.CANNOT_WRITE) from None
    except asyncio.CancelledError:
        where = "" if connection.address.base == DEFAULT_URL else f" --url {connection.address.base}"
        again = f"penstock read '{path}' --from {offset}{where}"
        print(f"\npenstock: stopped reading. Read on with: {again}", file=sys.stderr)
        raise
    if closed and start in ("", "start") and kind != "application/json":
        _check(await about(connection, path), size, digest.digest())
    return exits.OK


def _check(known: About, size: int, digest: bytes) -> None:
    """Hold what came against what the writer said of it, if it said anything, and if all of it is there."""
    if (
        known.digest
        and size == known.size
        and known.digest != f"sha-256=:{base64.b64encode(digest).decode()}:"
    ):
        message = "what came is not what its writer says it wrote: the SHA-256 differs."
        raise Failure(message, code=exits.FAILED)


def _lines(content: bytes) -> bytes:
    """Return an array of messages with one message a line."""
    return b"".join(msgspec.json.format(bytes(message), indent=-1) + b"\n" for message in _messages(content))


def _to_pipe(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _to_terminal() -> Callable[[bytes], None]:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(content: bytes) -> None:
        sys.stdout.write(harmless(decode(content)))
        sys.stdout.flush()

    return write


def _nothing(_: int) -> None:
    return None
