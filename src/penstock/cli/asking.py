"""Asking one question of a gateway: the generation is created, read to its end, and stopped on Ctrl-C."""

import uuid
from contextlib import suppress
from typing import Final

from penstock.cli import exits
from penstock.cli.answers import Answer
from penstock.cli.conversation import Conversation
from penstock.cli.exits import Failure
from penstock.cli.running import Outcome, explained, receive
from penstock.cli.views import View
from penstock.client.connection import Connection, Refused, Unreachable

MAX_GRACE: Final = 86_400.0
"""Seconds; a gateway takes no more."""


async def ask(connection: Connection, conversation: Conversation, view: View, answer: Answer) -> Outcome:
    """Ask for the next answer of ``conversation``; what comes goes into ``answer`` and ``view``.

    When this program is gone for longer than its patience, the gateway stops the generation: nobody
    would pay for an answer that nobody waits for.
    """
    key = uuid.uuid4().hex
    grace = min(max(1.0, connection.patience), MAX_GRACE)
    body = {"request": conversation.request(), "on_disconnect": f"grace:{grace:.1f}"}

    async def stop() -> None:
        if answer.stream:
            await connection.cancel(answer.stream)
        else:
            await connection.cancel_by_key(key)

    outcome = await receive(connection.start(body, key), answer, view, stop)
    if isinstance(outcome.error, BrokenPipeError):  # whoever read our output has left
        with suppress(Refused, Unreachable):
            await stop()
    return outcome


async def raise_failure(connection: Connection, error: Exception | None, model: str) -> None:
    """Raise why a read could not go on, if it could not."""
    if isinstance(error, Refused):
        raise await explained(connection, error, model) from None
    if error is not None:
        raise error


async def choose_model(connection: Connection) -> str:
    """Return the model for those who name none. Raises `Failure`, `Refused`, `Unreachable`."""
    models = await connection.models()
    if not models:
        hint = "Configure a provider, or name the model with --model."
        raise Failure("the gateway lists no models.", code=exits.NO_INPUT, hint=hint)
    return models[0].id


def exit_code(answer: Answer, outcome: Outcome) -> int:
    """Return the exit code of a question: Ctrl-C counts as what it is."""
    if outcome.stopped and answer.status != "completed":
        return exits.STOPPED
    return answer.exit_code() if answer.closed else exits.UNAVAILABLE
