"""Pages with `useChat` of Vercel's AI SDK, unchanged, in each of its versions, bundled as usual."""

import subprocess
from pathlib import Path

from tests.clients import node

VERSIONS = ("5", "6", "7")
SOURCE = node.FOLDER / "ai_sdk" / "page.mjs"


def bundle(version: str) -> str:
    """Return a page with everything in it."""
    source = SOURCE.read_text().replace("'HOOK'", f"'{hook(version)}'").replace("'SDK'", "'ai'")
    return f"<!doctype html><title>Chat</title><body><script>{escaped(script(source, version))}</script>"


def hook(version: str) -> str:
    """Return under which name a version of the hook is installed."""
    return f"ai-sdk-react-{version}"


def script(source: str, version: str) -> str:
    """Return ``source`` with everything that it imports."""
    modules = node.modules()
    command = [
        modules / ".bin" / "esbuild",
        "--bundle",
        "--format=iife",
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
