"""Presets: requests that an operator wrote, under a name, with places for what a caller says.

A place is `{{name}}`. What is put into it is text and stays text: it is never looked through for further
places, and it goes into the message that the place stands in and into no other. Pure.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.types.errors import ClientError
from penstock.types.requests import GenerationRequest, Message

CONTENT: Final = "content"
"""The place of what the caller says; the last message, unless a preset puts it elsewhere."""

MAX_CONTENT: Final = 1_000_000
"""Characters of what a caller says; the body's bound is mostly nearer."""

RESERVED: Final = frozenset({CONTENT, "format", "key", "token", "lastEventId", "last_event_id"})
"""What no variable can be called: a URL says something else by it."""

PLACE: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,63})\s*\}\}")


class Variable(msgspec.Struct, frozen=True):
    """A place. Without ``default`` the caller must say; ``choices``: one of these and nothing else."""

    default: str | None = None
    choices: tuple[str, ...] = ()
    max_chars: int = 1_000
    description: str = ""


class Parameters(msgspec.Struct, frozen=True):
    """What the model is asked with, besides the messages; None for its own."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None


class Preset(msgspec.Struct, frozen=True):
    """One preset. ``system`` and ``content`` are texts with places."""

    name: str
    model: str
    system: str = ""
    content: str = "{{content}}"
    description: str = ""
    variables: Mapping[str, Variable] = {}
    parameters: Parameters = Parameters()

    def request(self, content: str, variables: Mapping[str, str]) -> GenerationRequest:
        """Return what is asked when a caller says this. Raises `ClientError` 400."""
        values = self._values(variables)
        values[CONTENT] = self._content(content)
        messages = [Message("user", _filled(self.content, values))]
        if self.system:
            messages.insert(0, Message("system", _filled(self.system, values)))
        parameters = msgspec.structs.asdict(self.parameters)
        limit = parameters.pop("max_tokens")
        return GenerationRequest(
            self.model, tuple(messages), stream=True, max_output_tokens=limit, **parameters
        )

    def _content(self, content: str) -> str:
        if not content and CONTENT in places(self.system, self.content):
            message = "Say something: content is missing or empty."
            raise ClientError(message, code="missing_required_parameter", param=CONTENT)
        if len(content) > MAX_CONTENT:
            message = f"content has at most {MAX_CONTENT:,} characters."
            raise ClientError(message, code="invalid_value", param=CONTENT)
        return content

    def _values(self, given: Mapping[str, str]) -> dict[str, str]:
        for name in given:
            if name not in self.variables:
                known = ", ".join(self.variables) or "none"
                message = f"The preset has no variable '{name[:100]}'; it has: {known}."
                raise ClientError(message, code="invalid_value", param=f"variables.{name[:100]}")
        values = {}
        for name, variable in self.variables.items():
            value = given.get(name, variable.default)
            param = f"variables.{name}"
            if value is None:
                raise ClientError(f"Give {param}.", code="missing_required_parameter", param=param)
            if variable.choices and value not in variable.choices:
                message = f"{param} is one of: {', '.join(variable.choices)}."
                raise ClientError(message, code="invalid_value", param=param)
            if len(value) > variable.max_chars:
                message = f"{param} has at most {variable.max_chars:,} characters."
                raise ClientError(message, code="invalid_value", param=param)
            values[name] = value
        return values


def places(*texts: str) -> set[str]:
    """Return the names of the places in ``texts``."""
    return {found[1] for text in texts for found in PLACE.finditer(text)}


def _filled(text: str, values: Mapping[str, str]) -> str:
    return PLACE.sub(lambda found: values[found[1]], text)
