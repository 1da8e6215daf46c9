"""The line that a person types into a chat: keys, history, completion.

Enter sends; Alt-Enter, Esc then Enter or a backslash at the end of the line begin another line; what is
pasted is kept whole. The history is a file of the person's own (0600), of the last `MAX_HISTORY`
entries, one JSON string a line, so that an entry may have lines of its own.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.color_depth import ColorDepth

from penstock.client.connection import Model

MAX_HISTORY: Final = 1_000
MAX_ENTRY: Final = 20_000
"""Characters of an entry that is kept: a pasted book is not."""


def history_file(environ: dict[str, str]) -> Path:
    """Return where the history is kept."""
    base = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "."), ".local", "state")
    return Path(base) / "penstock" / "chat_history"


class BoundedHistory(History):
    """See the module's head. A file that cannot be read or written is done without."""

    def __init__(self, path: Path) -> None:
        """Nothing is read before it is asked for."""
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """Return the entries, newest first, and cut the file when it has grown too long."""
        entries = self._read()
        if len(entries) > MAX_HISTORY:
            entries = entries[-MAX_HISTORY:]
            self._write(entries)
        return reversed(entries)

    def store_string(self, string: str) -> None:
        """Add an entry to the file."""
        if len(string) > MAX_ENTRY:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, json.dumps(string).encode() + b"\n")
            finally:
                os.close(file)
        except OSError:
            pass

    def _read(self) -> list[str]:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        entries = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, str):
                entries.append(entry)
        return entries

    def _write(self, entries: list[str]) -> None:
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as out:
                out.writelines(json.dumps(entry) + "\n" for entry in entries)
            new.replace(self._path)
        except OSError:
            pass


class CommandCompleter(Completer):
    """Completes commands, the names of models after ``/model``, and files after ``/save``."""

    def __init__(self, commands: dict[str, str], models: Callable[[], list[Model]]) -> None:
        """``commands``: what each does, by its name with the slash."""
        self._commands = commands
        self._models = models
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return what the text before the cursor may become."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        command, space, rest = text.partition(" ")
        if not space:
            for name, what in self._commands.items():
                if name.startswith(command):
                    yield Completion(name, start_position=-len(command), display_meta=what)
        elif command == "/model":
            for model in self._models():
                if rest in model.id:
                    yield Completion(model.id, start_position=-len(rest), display_meta=model.description)
        elif command in ("/save", "/file"):
            yield from self._paths.get_completions(Document(rest), complete_event)


def keys() -> KeyBindings:
    """Return what Enter, its relatives and Ctrl-C do."""
    bindings = KeyBindings()

    @bindings.add("enter")
    @bindings.add("c-j")  # what Enter is when it was pressed before the prompt was there
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # the chosen completion stands already
        elif buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("tab")
    def _complete(event: KeyPressEvent) -> None:
        # Not the library's own: its menu opens in a task of its own, which a quick Tab would race.
        buffer = event.current_buffer
        if not buffer.text.startswith("/"):
            buffer.insert_text("    ")
            return
        found = list(
            buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True))
        )
        if len(found) == 1:
            buffer.complete_state = None
            buffer.apply_completion(found[0])
        elif buffer.complete_state:
            buffer.complete_next()
        elif found:
            buffer.start_completion(insert_common_part=True)

    @bindings.add("c-c")
    def _clear_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    return bindings


def editor(
    commands: dict[str, str], models: Callable[[], list[Model]], environ: dict[str, str]
) -> PromptSession[str]:
    """Return the prompt of a chat."""
    settings: dict[str, Any] = {}
    if environ.get("NO_COLOR"):
        settings["color_depth"] = ColorDepth.DEPTH_1_BIT
    session: PromptSession[str] = PromptSession(
        multiline=True,
        key_bindings=keys(),
        history=BoundedHistory(history_file(environ)),
        completer=CommandCompleter(commands, models),
        complete_while_typing=Condition(lambda: session.default_buffer.text.startswith("/")),
        prompt_continuation=lambda width, *_: "·" + " " * (width - 1),
        reserve_space_for_menu=4,
        enable_suspend=True,
        **settings,
    )
    return session
