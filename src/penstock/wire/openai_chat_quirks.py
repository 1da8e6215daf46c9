"""Chat Completions as other servers take it: what differs from OpenAI, as data, and how it is applied.

Owns the last step of a request to a compatible server: names that differ, fields it has no place for,
roles it does not know. A `Quirks` is a value, so that a vendor is a few lines of a table
(`penstock.providers.profiles`). Answers need nothing of the kind: the decoder takes all forms that were
seen, whoever sends them. No address enters.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.types.requests import Extra, GenerationRequest
from penstock.wire.fitting import Fitting
from penstock.wire.openai_chat_requests import rendered

Effort: TypeAlias = Literal["reasoning_effort", "thinking", "enable_thinking", "reasoning", "none"]
"""How a server is told how hard to think: OpenAI's own field; GLM's ``{"type": "enabled"}``; Qwen's flag;
OpenRouter's object; or not at all."""

_encode = msgspec.json.Encoder().encode


class Quirks(msgspec.Struct, frozen=True):
    """How a server's requests differ from OpenAI's.

    ``limit``: the name of the output limit (``as_given``: what the client called it). ``developer``: it
    knows that role. ``usage``: it takes ``stream_options``; those that do not report usage unasked.
    ``efforts``: words that stand for OpenAI's. ``renames``: fields under other names. ``lacks``: fields
    that it has no place for. ``call_id``: how many letters and digits the id of a tool call must have.
    ``counts_logprobs``: ``logprobs`` is the number of alternatives.
    """

    limit: Literal["as_given", "max_tokens", "max_completion_tokens"] = "as_given"
    developer: bool = True
    usage: bool = True
    effort: Effort = "reasoning_effort"
    efforts: Mapping[str, str] = {}
    renames: Mapping[str, str] = {}
    lacks: frozenset[str] = frozenset()
    call_id: int = 0
    counts_logprobs: bool = False


NO_QUIRKS: Final = Quirks()

_USUAL: Final[Mapping[str, Any]] = {"parallel_tool_calls": True}
"""Values that ask for nothing, where that is not False."""


def render_request(request: GenerationRequest, model: str, quirks: Quirks, fitting: Fitting) -> bytes:
    """Render for ``model`` of a server with ``quirks``. Raises `ClientError` for what it cannot be asked."""
    out = rendered(request, model)
    return _encode(out if quirks == NO_QUIRKS else adapt(out, quirks, fitting))


def adapt(out: Extra, quirks: Quirks, fitting: Fitting) -> Extra:
    """Return the request ``out``, as OpenAI would take it, in the form that such a server takes."""
    out = dict(out)
    if "n" in quirks.lacks and out.get("n", 1) != 1:
        raise fitting.refused("n")
    for name in quirks.lacks.intersection(out):
        value = out.pop(name)
        if value is not _USUAL.get(name, False) and value not in (None, "", [], {}):
            fitting.lack(name)
    if "logprobs" not in out:
        out.pop("top_logprobs", None)
    if quirks.limit != "as_given":
        other = "max_tokens" if quirks.limit != "max_tokens" else "max_completion_tokens"
        limit = out.pop(other, None)
        if limit is not None:
            out.setdefault(quirks.limit, limit)
    if not quirks.usage:
        out.pop("stream_options", None)
    if quirks.counts_logprobs and (wanted := out.pop("logprobs", None)):
        out["logprobs"] = out.pop("top_logprobs", None) or (1 if wanted is True else wanted)
    _say_effort(out, quirks, fitting)
    for name, theirs in quirks.renames.items():
        if name in out:
            out.setdefault(theirs, out[name])
            del out[name]
    if not quirks.developer or quirks.call_id:
        out["messages"] = [_message(message, quirks) for message in out["messages"]]
    return out


def _say_effort(out: Extra, quirks: Quirks, fitting: Fitting) -> None:
    effort = out.get("reasoning_effort")
    if effort is None:
        return
    thinks = effort != "none"
    match quirks.effort:
        case "reasoning_effort":
            out["reasoning_effort"] = quirks.efforts.get(effort, effort)
            return
        case "thinking":
            out.setdefault("thinking", {"type": "enabled" if thinks else "disabled"})
        case "enable_thinking":
            out.setdefault("enable_thinking", thinks)
        case "reasoning":
            out.setdefault("reasoning", {"effort": effort} if thinks else {"enabled": False})
        case "none":
            fitting.lack("reasoning_effort")
    del out["reasoning_effort"]


def _message(message: Extra, quirks: Quirks) -> Extra:
    message = dict(message)
    if message["role"] == "developer" and not quirks.developer:
        message["role"] = "system"
    if quirks.call_id:
        if id_ := message.get("tool_call_id"):
            message["tool_call_id"] = short_id(id_, quirks.call_id)
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [
                {**call, "id": short_id(call.get("id", ""), quirks.call_id)} for call in calls
            ]
    return message


_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def short_id(id_: str, length: int) -> str:
    """Return ``id_`` if it has ``length`` letters and digits, else one that has, the same for the same."""
    if re.fullmatch(f"[a-zA-Z0-9]{{{length}}}", id_):
        return id_
    number = int.from_bytes(hashlib.sha256(id_.encode()).digest(), "big")
    letters = []
    for _ in range(length):
        number, at = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[at])
    return "".join(letters)
