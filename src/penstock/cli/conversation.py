"""A conversation: its turns, its model and how the model is to answer; and what is sent of it.

Pure but for reading the files that a person names and writing the one to save to. Only what was shown is
sent again: an answer that was stopped counts as far as it came, one that never began does not count.
"""

import base64
import json
import mimetypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from penstock.cli import exits
from penstock.cli.exits import Failure

MAX_FILE: Final = 16 << 20
"""Bytes of a file that is sent along; a gateway takes requests of 32 MiB, and base64 adds a third."""


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a model chooses its words; None leaves it to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None


class Turn(msgspec.Struct, frozen=True):
    """What one side said; ``content`` is a text, or parts in OpenAI's form where files came with it."""

    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The words alone."""
        if isinstance(self.content, str):
            return self.content
        return "\n\n".join(str(part.get("text", "(a file)")) for part in self.content)


class Conversation:
    """The turns so far, and the settings that the next answer is asked with."""

    def __init__(self, model: str = "", system: str = "", sampling: Sampling | None = None) -> None:
        """An empty ``model`` is one that is still to be found out."""
        self.model = model
        self.system = system
        self.sampling = sampling or Sampling()
        self.turns: list[Turn] = []

    def request(self) -> dict[str, Any]:
        """Return the request for the next answer, in OpenAI's form."""
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        messages += [{"role": turn.role, "content": turn.content} for turn in self.turns]
        return {"model": self.model, "messages": messages, **msgspec.to_builtins(self.sampling)}

    def ask(self, content: str | list[dict[str, Any]]) -> None:
        """Add what the person says, in place of a question that nothing was said to."""
        if self.turns and self.turns[-1].role == "user":
            self.turns.pop()
        self.turns.append(Turn("user", content))

    def answered(self, text: str) -> None:
        """Add what the model said; nothing takes the question back, so that it can be asked again."""
        if text:
            self.turns.append(Turn("assistant", text))

    def take_back(self) -> Turn | None:
        """Remove the last question and what was answered, and return the question."""
        while self.turns:
            turn = self.turns.pop()
            if turn.role == "user":
                return turn
        return None

    def clear(self) -> None:
        """Forget the turns, and keep the settings."""
        self.turns = []

    def save(self, path: Path) -> None:
        """Write everything to a new file: JSON if it is called so, else Markdown. Raises `OSError`."""
        if path.suffix.lower() == ".json":
            text = json.dumps(self.request(), ensure_ascii=False, indent=2) + "\n"
        else:
            text = self.markdown()
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)

    def markdown(self) -> str:
        """Return everything as a page."""
        parts = [f"# Chat with {self.model}"]
        if self.system:
            parts += ["## System", self.system]
        for turn in self.turns:
            parts += ["## You" if turn.role == "user" else f"## {self.model}", turn.text]
        return "\n\n".join(parts) + "\n"


def with_files(prompt: str, files: Iterable[Path]) -> str | list[dict[str, Any]]:
    """Return ``prompt`` with files put before it: text as text, pictures as parts. Raises `Failure`."""
    texts, pictures = [], []
    for path in files:
        data = _read(path)
        kind = mimetypes.guess_type(path.name)[0] or ""
        if kind.startswith("image/"):
            url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
            pictures.append({"type": "image_url", "image_url": {"url": url}})
            continue
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Failure(
                f"{path} is neither UTF-8 text nor a picture.", code=exits.NO_INPUT, hint="Convert it first."
            ) from None
        texts.append(f'<file name="{path.name}">\n{text.rstrip()}\n</file>')
    said = "\n\n".join([*texts, *([prompt] if prompt else [])])
    return [{"type": "text", "text": said}, *pictures] if pictures else said


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.", code=exits.NO_INPUT) from None
    if len(data) > MAX_FILE:
        raise Failure(f"{path} is larger than {MAX_FILE >> 20} MiB.", code=exits.NO_INPUT)
    return data
