"""``penstock chat``: one question, or a conversation when a person sits at both ends."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock.cli import exits
from penstock.cli.answers import Answer
from penstock.cli.asking import ask, choose_model, exit_code, raise_failure
from penstock.cli.conversation import MAX_FILE, Conversation, Sampling, with_files
from penstock.cli.exits import Failure
from penstock.cli.markdown import THEME
from penstock.cli.options import PATIENCE, Key, Model, Patience, Url
from penstock.cli.running import Outcome, address, run
from penstock.cli.screen import Screen
from penstock.cli.talk import Talk
from penstock.cli.views import EventsView, QuietView, TerminalView, View, WordsView
from penstock.client.addresses import DEFAULT_URL
from penstock.client.connection import Connection


def chat(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", show_default=False, help="The question; none begins a chat."),
    ] = None,
    model: Model = "",
    system: Annotated[
        str, typer.Option("--system", "-s", metavar="TEXT", help="What the model is told first.")
    ] = "",
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="A text or picture to send along; may be repeated."
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="How freely words are chosen.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="The share of likely words to choose from.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="The answer's greatest length.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    patience: Patience = PATIENCE,
    plain: Annotated[
        bool, typer.Option("--plain", help="Words as they come, without rendering Markdown.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The whole answer as one JSON object, once it has ended.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Every event as one line of JSON, as it comes.")
    ] = False,
) -> None:
    """Talk to a model through a running gateway, or ask one question.

    Without a PROMPT, on a terminal, a chat begins; /help lists its commands. With one, or with text on
    standard input, the answer goes to standard output: as rendered Markdown on a terminal, else as the
    plain words. Ctrl-C stops the answer at the gateway. A lost connection is taken up again by itself.

    \b
    penstock chat
    penstock chat "Why is the sky blue?"
    git diff | penstock chat "Write a commit message for this"
    penstock chat --file notes.md --model gpt-4o-mini "Summarise this"
    penstock chat --json "Name three rivers" | jq -r .text

    \b
    Exit codes: 0 complete, 1 failed or refused, 2 wrongly typed, 3 cancelled by somebody else,
    4 interrupted, 66 no such model or file, 69 no gateway, 77 key missing or wrong, 130 Ctrl-C.
    """
    if as_json and events:
        raise Failure("choose one of --json and --events.", code=exits.USAGE)
    conversation = Conversation(model, _text(system), Sampling(temperature, top_p, max_tokens))
    at = address(url, key)
    piped = "" if sys.stdin.isatty() else _standard_input()
    words = "\n\n".join(part for part in (piped, _text(" ".join(prompt or ()))) if part.strip())
    if words or file:
        conversation.ask(with_files(words, file or ()))

        async def one(connection: Connection) -> int:
            return await _answer_once(connection, conversation, as_json=as_json, events=events, plain=plain)

        raise typer.Exit(run(at, patience, one))
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or as_json or events:
        hint = 'Write it after the command, penstock chat "…", or send it to standard input.'
        raise Failure("there is no question.", code=exits.USAGE, hint=hint)

    async def talk(connection: Connection) -> int:
        conversation.model = conversation.model or await choose_model(connection)
        return await Talk(connection, conversation, plain=plain).run()

    raise typer.Exit(run(at, patience, talk))


def _text(argument: str) -> str:
    """Return an argument without the halves of characters that bytes which are no text come as."""
    return argument.encode("utf-8", "replace").decode()


def _standard_input() -> str:
    data = sys.stdin.buffer.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise Failure(f"standard input is larger than {MAX_FILE >> 20} MiB.", code=exits.NO_INPUT)
    return data.decode("utf-8", "replace").rstrip()


async def _answer_once(
    connection: Connection, conversation: Conversation, *, as_json: bool, events: bool, plain: bool
) -> int:
    conversation.model = conversation.model or await choose_model(connection)
    answer = Answer()
    if as_json or events:
        view: View = EventsView() if events else QuietView()
        outcome = await ask(connection, conversation, view, answer)
        if as_json and answer.stream:
            print(json.dumps(answer.result(), ensure_ascii=False))
    elif plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        outcome = await ask(connection, conversation, WordsView(), answer)
    else:
        console = Console(theme=THEME, highlight=False)
        with Screen(sys.stdout, shutil.get_terminal_size) as screen:
            view = TerminalView(console, screen, conversation.model)
            outcome = await ask(connection, conversation, view, answer)
    await raise_failure(connection, outcome.error, conversation.model)
    _say_ending(answer, outcome)
    return exit_code(answer, outcome)


def _say_ending(answer: Answer, outcome: Outcome) -> None:
    said = answer.ending()
    if not answer.closed and outcome.stopped:
        said = "Left. The gateway could not be told to stop; it will by itself when nobody comes back."
    if said:
        print(f"penstock: {said}", file=sys.stderr)
