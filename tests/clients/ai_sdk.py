"""Pages with `useChat` of Vercel's AI SDK, unchanged, in each of its versions, bundled as usual.

And the hook's own `Chat` in Node.js, which is all of `useChat` but React.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.clients import node

VERSIONS = ("5", "6", "7")
SOURCE = node.FOLDER / "ai_sdk" / "page.mjs"
CHAT = node.FOLDER / "ai_sdk" / "chat.mjs"
PATIENCE = 120
"""Seconds that one chat may take."""


def bundle(version: str) -> str:
    """Return a page with everything in it."""
    made = script(filled(SOURCE, version), version)
    return f"<!doctype html><title>Chat</title><body><script>{escaped(made)}</script>"


class Chats:
    """A version's `Chat` in Node.js, put together in ``folder``."""

    def __init__(self, version: str, folder: Path) -> None:
        self._file = folder / f"chat-{version}.mjs"
        self._file.write_text(script(filled(CHAT, version), version, "--platform=node", "--format=esm"))
        self._jobs = folder / f"chat-{version}.json"

    def run(self, *jobs: dict[str, Any], lanes: int = 50) -> list[dict[str, Any]]:
        """Do what chat.mjs knows how to do, in a process that is then gone; return what each came to."""
        work = {"jobs": jobs, "lanes": lanes, "patience": PATIENCE * 1000}
        self._jobs.write_text(json.dumps(work))
        node.run(str(self._file), str(self._jobs), patience=PATIENCE + 3_000)
        return json.loads(self._jobs.with_suffix(".json.results").read_text())


def filled(source: Path, version: str) -> str:
    """Return a source with the packages of a version in it."""
    text = source.read_text().replace("'HOOK'", f"'{hook(version)}'").replace("'SDK'", "'ai'")
    return text.replace("'VERSION'", f"'{version}'")


def known(message: dict[str, Any]) -> tuple:
    """Return what must be the same of two answers to one question."""
    metadata = {key: value for key, value in message["metadata"].items() if key != "stream"}
    return message["role"], message["parts"], metadata


def text_of(message: dict[str, Any]) -> str:
    """Return what was said in a message."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def hook(version: str) -> str:
    """Return under which name a version of the hook is installed."""
    return f"ai-sdk-react-{version}"


def script(source: str, version: str, *options: str) -> str:
    """Return ``source`` with everything that it imports; for a page, if no ``options`` say otherwise."""
    modules = node.modules()
    command = [
        modules / ".bin" / "esbuild",
        "--bundle",
        *(options or ("--format=iife",)),
        "--minify",
        "--define:process.env.NODE_ENV='production'",
        "--define:process.env={}",
        f"--alias:@ai-sdk/react={hook(version)}",
    ]
    # From within the hook's package, so that `ai` is the one that it came with.
    made = subprocess.run(
        command,
        input=source,
        cwd=Path(modules) / hook(version),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def escaped(script: str) -> str:
    """Return ``script`` for the inside of an element."""
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")
