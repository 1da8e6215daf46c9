"""What a target cannot be told of a request: refused, or left out and said so.

Owns the two rules that an operator chooses between (`Rule`) and the names under which clients know what
they asked for. A dialect that renders for a provider says what it has a place for; everything else that
the request asks is *lacking*. Where leaving something out would make it another answer (several choices,
parts of messages, tools), the dialects refuse by themselves, under either rule. No provider's name enters.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any, Final, Literal, TypeAlias

from penstock.types.errors import ClientError
from penstock.types.requests import GenerationRequest

Rule: TypeAlias = Literal["drop", "refuse"]
"""``drop``: what the target lacks is left out, and the client is told which; ``refuse``: it is an error."""

_HARMLESS: Final = frozenset(("user", "store", "metadata", "service_tier", "safety_identifier")).union(
    ("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "cache_control")
)
"""What says nothing about the answer: never refused, but told like the rest."""

_WISHES: Final = frozenset(("logit_bias", "modalities", "audio", "prediction", "verbosity", "top_k")).union(
    ("web_search_options", "functions", "function_call", "min_p", "repetition_penalty", "moderation")
)
"""Fields without a place in `GenerationRequest` that shape the answer; of any other nobody knows whether."""

_NOTES: Final = frozenset(
    ("anthropic_version", "anthropic_beta", "thinking", "output_config", "stream_options")
).union(("max_tokens", "system", "stream"))
"""Fields that dialects keep for themselves, or that are said another way."""

MAX_NAMES: Final = 32
"""Names that are told; a request may have any number of fields that nobody knows."""

MAX_NAME: Final = 64

_STRANGE: Final = re.compile(r"[^A-Za-z0-9_.-]")


class Fitting:
    """One request on its way to one target. ``dropped`` grows as its rendering goes on."""

    __slots__ = ("_dropped", "_rule", "_who")

    def __init__(self, who: str, rule: Rule = "drop") -> None:
        """``who`` is the target in the words of an error: a provider's name."""
        self._who = who
        self._rule = rule
        self._dropped: dict[str, None] = {}

    def __repr__(self) -> str:
        """Show the rule and what is left out."""
        return f"Fitting({self._who!r}, {self._rule!r}, dropped={list(self._dropped)})"

    @property
    def who(self) -> str:
        """The target in the words of an error."""
        return self._who

    @property
    def dropped(self) -> tuple[str, ...]:
        """What was left out so far, in the client's names."""
        return tuple(self._dropped)

    def lack(self, name: str) -> None:
        """The target has no place for ``name``. Raises `ClientError` `unsupported_parameter` by the rule."""
        if self._rule == "refuse" and name not in _HARMLESS:
            raise self.refused(name)
        self._note(name)

    def leave_out(self, name: str) -> None:
        """The target is not told ``name``, which is told under either rule: it asks for nothing."""
        self._note(name)

    def _note(self, name: str) -> None:
        if len(self._dropped) < MAX_NAMES:  # a field's name is a client's, and goes into a header
            self._dropped[_STRANGE.sub("?", name[:MAX_NAME])] = None

    def refused(self, name: str) -> ClientError:
        """Return the error for something that cannot be left out either."""
        return ClientError(
            f"The provider '{self._who}' cannot be asked for '{name}'. Leave it out, or ask another model.",
            code="unsupported_parameter",
            param=name,
        )

    def one_answer(self, request: GenerationRequest) -> None:
        """Raises `ClientError` where more than one choice is asked for."""
        if request.n != 1:
            raise ClientError(
                f"The provider '{self._who}' gives one answer to a request: 'n' must be 1, not {request.n}.",
                code="invalid_value",
                param="n",
            )

    def check(
        self, request: GenerationRequest, fields: Collection[str], extras: Collection[str] = ()
    ) -> None:
        """Note what ``request`` asks beyond ``fields``, by their names in `GenerationRequest`, and, of its
        unknown fields, beyond ``extras``. Raises `ClientError` by the rule."""
        for name in _asked(request):
            if name not in fields:
                self.lack("max_tokens" if name == "max_output_tokens" else name)
        for name, value in (request.extra or {}).items():
            if value is None or name in extras or name in _NOTES or value in ("", [], {}):
                continue
            if name in _WISHES:
                self.lack(name)
            else:
                self._note(name)


_OPTIONAL: Final = (
    *("max_output_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"),
    *("response_format", "reasoning_effort", "user", "metadata"),
)


def _asked(request: GenerationRequest) -> Iterator[str]:
    """Yield the fields that ask for something: not those whose value is what goes without saying."""
    yield from (name for name in _OPTIONAL if _says(getattr(request, name)))
    if request.n != 1:
        yield "n"
    if request.stop:
        yield "stop"
    if request.logprobs:
        yield "logprobs"
        if request.top_logprobs:
            yield "top_logprobs"
    if request.tools:
        yield "tools"
    if request.tool_choice not in (None, "auto"):
        yield "tool_choice"
    if request.parallel_tool_calls is False:
        yield "parallel_tool_calls"
    if request.store is not None:
        yield "store"


def _says(value: Any) -> bool:
    return value is not None and value not in ({}, {"type": "text"})
