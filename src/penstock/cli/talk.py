"""A conversation at a terminal: prompt, answer, prompt; and the commands that begin with a slash.

What the person typed in vain is never lost: a question that was refused or failed can be asked again with
/retry, or taken from the history and changed.
"""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from rich.console import Console
from rich.text import Text

from penstock.cli import exits
from penstock.cli.answers import Answer
from penstock.cli.asking import ask
from penstock.cli.conversation import Conversation, Sampling, with_files
from penstock.cli.editing import editor
from penstock.cli.exits import Failure
from penstock.cli.markdown import THEME
from penstock.cli.models import table
from penstock.cli.output import harmless
from penstock.cli.running import Outcome, explained, unreachable
from penstock.cli.screen import Screen
from penstock.cli.views import TerminalView, WordsView, final
from penstock.client.connection import Connection, Model, Refused, Unreachable

PROMPT: Final = "> "


class Command(NamedTuple):
    """A command of the chat; ``usage`` names what it takes."""

    run: Callable[[str], Awaitable[None]]
    usage: str
    summary: str


class Talk:
    """One chat."""

    def __init__(self, connection: Connection, conversation: Conversation, *, plain: bool) -> None:
        """``plain``: no rendering of Markdown."""
        self._connection = connection
        self._conversation = conversation
        self._plain = plain or os.environ.get("TERM", "dumb") == "dumb"
        self._console = Console(theme=THEME, highlight=False, soft_wrap=False)
        self._models: list[Model] = []
        self._stream = ""
        self._files: list[Path] = []
        self._leaving = False
        self._commands = {
            "/model": Command(self._model, "[NAME]", "answer with another model; alone: list them"),
            "/system": Command(self._system, "[TEXT | -]", "what the model is told first; - for nothing"),
            "/set": Command(self._set, "[NAME VALUE]", "temperature, top_p or max_tokens; - for the default"),
            "/file": Command(self._file, "PATH", "send a text or a picture along with the next question"),
            "/retry": Command(self._retry, "", "ask the last question again"),
            "/clear": Command(self._clear, "", "begin anew"),
            "/save": Command(
                self._save, "FILE", "write the chat to a file: Markdown, or JSON if it ends in .json"
            ),
            "/info": Command(self._info, "", "model, settings and the last stream"),
            "/help": Command(self._help, "", "this list"),
            "/quit": Command(self._quit, "", "leave; so do Ctrl-D and Ctrl-C"),
        }

    async def run(self) -> int:
        """Talk until the person leaves; return the exit code. Raises `Refused` or `Unreachable` at first."""
        self._models = await self._connection.models()
        summaries = {name: command.summary for name, command in self._commands.items()}
        session = editor(summaries, lambda: self._models, dict(os.environ))
        self._say(f"{self._conversation.model} at {self._connection.address.base}", "bold")
        self._say("Enter sends, Alt-Enter begins a line, Ctrl-C stops an answer, /help says more.", "dim")
        while not self._leaving:
            print()
            try:
                text = (await session.prompt_async(PROMPT)).strip()
            except EOFError:
                break
            if text.startswith("/"):
                await self._command(text)
            elif text:
                await self._question(text)
        return exits.OK

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(harmless(text), style=style))

    def _complain(self, failure: Failure) -> None:
        self._say(failure.message, "red")
        if failure.hint:
            self._say(failure.hint, "dim")

    # --- asking -------------------------------------------------------------------------------------

    async def _question(self, text: str) -> None:
        try:
            content = with_files(text, self._files)
        except Failure as failure:
            self._complain(failure)
            return
        self._files = []
        self._conversation.ask(content)
        await self._answer()

    async def _answer(self) -> None:
        answer = Answer()
        losses = 0
        print()
        if self._plain:
            outcome = await ask(self._connection, self._conversation, WordsView(), answer)
        else:
            with Screen(sys.stdout, shutil.get_terminal_size) as screen:
                view = TerminalView(self._console, screen, self._conversation.model)
                outcome = await ask(self._connection, self._conversation, view, answer)
                losses = view.losses
        if answer.text or answer.calls:
            print()
        self._stream = answer.stream or self._stream
        self._conversation.answered(answer.text)
        await self._say_ending(answer, outcome, losses)

    async def _say_ending(self, answer: Answer, outcome: Outcome, losses: int) -> None:
        match outcome.error:
            case Refused() as refused:
                self._complain(await explained(self._connection, refused, self._conversation.model))
                self._say("/retry asks again.", "dim")
                return
            case Unreachable() as error:
                self._complain(unreachable(error))
                self._say("/retry asks again; what came so far is kept.", "dim")
                return
            case Exception() as error:
                raise error
        if answer.closed is None:
            self._say("Left. The gateway stops the answer by itself when nobody comes back.", "yellow")
            return
        if not answer.text and not answer.calls and answer.status == "completed":
            self._say("(an empty answer)", "dim")
        if said := answer.ending():
            self._say(said, "yellow" if answer.status in ("completed", "cancelled") else "red")
        if answer.status not in ("completed", "cancelled"):
            self._say("/retry asks again.", "dim")
        elif figures := final(answer):
            again = f" · connected again {losses}×" if losses else ""
            self._say(figures + again, "dim")

    # --- commands -----------------------------------------------------------------------------------

    async def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        near = [known for known in self._commands if known.startswith(name)]
        command = self._commands.get(name) or (self._commands[near[0]] if len(near) == 1 else None)
        if name == "/exit":
            command = self._commands["/quit"]
        if command is None:
            self._say(f"There is no command {name}; /help lists those there are.", "yellow")
            return
        try:
            await command.run(rest.strip())
        except Failure as failure:
            self._complain(failure)
        except Refused as refused:
            self._complain(await explained(self._connection, refused))
        except Unreachable as error:
            self._complain(unreachable(error))

    async def _model(self, name: str) -> None:
        if not name:
            self._models = await self._connection.models()
            for line in table(self._models, self._console.width):
                print(line)
            return
        known = {model.id for model in self._models}
        if known and name not in known:
            self._say(f"The gateway does not list {name}; it may know it nevertheless.", "yellow")
        self._conversation.model = name
        self._say(f"{name} answers from now on.", "dim")

    async def _system(self, text: str) -> None:
        if text:
            self._conversation.system = "" if text == "-" else text
        self._say(self._conversation.system or "The model is told nothing first.", "dim")

    async def _set(self, text: str) -> None:
        sampling = msgspec.structs.asdict(self._conversation.sampling)
        if text:
            name, _, value = text.replace("=", " ").partition(" ")
            try:
                sampling[name] = None if value.strip() == "-" else value.strip()
                self._conversation.sampling = msgspec.convert(sampling, Sampling, strict=False)
            except msgspec.ValidationError:
                names = ", ".join(Sampling.__struct_fields__)
                raise Failure(f"/set takes one of {names}, and a number.", code=exits.USAGE) from None
        for name, value in msgspec.structs.asdict(self._conversation.sampling).items():
            self._say(f"{name} {'the default' if value is None else value}", "dim")

    async def _file(self, text: str) -> None:
        path = _path(text, "/file")
        with_files("", [path])  # whether it can be read
        self._files.append(path)
        self._say(f"{path} goes with the next question.", "dim")

    async def _retry(self, _: str) -> None:
        turn = self._conversation.take_back()
        if turn is None:
            self._say("There is no question to ask again.", "yellow")
            return
        self._conversation.ask(turn.content)
        self._say(PROMPT + turn.text, "dim")
        await self._answer()

    async def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._files = []
        self._say("A new chat.", "dim")

    async def _save(self, text: str) -> None:
        path = _path(text or time.strftime("chat-%Y%m%d-%H%M%S.md"), "/save")
        try:
            self._conversation.save(path)
        except FileExistsError:
            raise Failure(f"{path} exists; choose another name.", code=exits.CANNOT_WRITE) from None
        except OSError as error:
            raise Failure(f"{path} cannot be written: {error.strerror}.", code=exits.CANNOT_WRITE) from None
        self._say(f"Saved to {path}.", "dim")

    async def _info(self, _: str) -> None:
        self._say(f"{self._conversation.model} at {self._connection.address.base}")
        self._say(f"system: {self._conversation.system or '-'}", "dim")
        await self._set("")
        self._say(f"{len(self._conversation.turns)} turns; last stream: {self._stream or '-'}", "dim")

    async def _help(self, _: str) -> None:
        for name, command in self._commands.items():
            head = f"{name} {command.usage}".ljust(20)
            self._console.print(Text.assemble(head, (command.summary, "dim")))
        self._say("Enter sends; Alt-Enter or \\ at the end of a line begin another line.", "dim")

    async def _quit(self, _: str) -> None:
        self._leaving = True


def _path(text: str, command: str) -> Path:
    try:
        words = shlex.split(text)
    except ValueError:
        words = [text]
    if len(words) != 1:
        raise Failure(f"{command} takes one file name.", code=exits.USAGE)
    return Path(words[0]).expanduser()
