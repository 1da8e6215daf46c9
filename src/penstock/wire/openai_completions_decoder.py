"""Legacy Completions, the decoder: a provider's body → events.

Owns the form of a choice: its text stands beside its reason, and its log probabilities are four lists.
Strategy: a plain piece of text is decoded strictly; anything else is put in the form of Chat Completions,
whose framing, errors, counts and endings these share.

Source: the OpenAPI document of openai/openai-openapi; vLLM's and llama.cpp's servers.
"""

from itertools import zip_longest
from typing import Any

import msgspec

from penstock.types.events import Extra, TextDelta
from penstock.wire.decoding import Events, as_objects, read_json
from penstock.wire.openai_chat_decoder import ChatDecoder


class _Choice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    text: str
    index: int = 0
    logprobs: None = None
    finish_reason: None = None
    stop_reason: None = None
    prompt_logprobs: None = None


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    choices: list[_Choice]
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    usage: None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class CompletionsDecoder(ChatDecoder):
    """A provider's body to events. Order and errors: see `BodyDecoder` and `ChatDecoder`."""

    __slots__ = ()

    def _chunk(self, name: bytes, data: bytes, events: Events) -> None:
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            if len(chunk.choices) == 1 and (choice := chunk.choices[0]).index in self._states:
                if choice.text:
                    events.append(TextDelta(choice.text, choice.index))
                return
        if data.strip() == b"[DONE]":
            self.finished = True
            return
        value = read_json(data)
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            self._given(_as_chat(value), events)
        else:
            super()._chunk(name, data, events)

    def _document(self, value: Any, events: Events) -> None:
        """A whole `text_completion`, or an error with status 200."""
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            value = _as_chat(value)
        super()._document(value, events)


def _as_chat(value: Extra) -> Extra:
    """Return a chunk in the form of Chat Completions."""
    choices = []
    for choice in as_objects(value["choices"]):
        rest = {name: item for name, item in choice.items() if name not in ("text", "logprobs")}
        made = {**rest, "delta": {"content": choice["text"]}} if "text" in choice else rest
        if (logprobs := _logprobs(choice.get("logprobs"))) is not None:
            made["logprobs"] = logprobs
        choices.append(made)
    return {**value, "choices": choices}


def _logprobs(given: Any) -> Extra | None:
    """Return log probabilities as chat has them; newer llama.cpp gives them in that form already."""
    if not isinstance(given, dict) or isinstance(given.get("content"), list):
        return given if isinstance(given, dict) else None
    tokens, values, tops = (
        found if isinstance(found := given.get(name), list) else []
        for name in ("tokens", "token_logprobs", "top_logprobs")
    )
    content = []
    for token, value, top in zip_longest(tokens, values[: len(tokens)], tops[: len(tokens)]):
        if isinstance(token, str):
            others = top.items() if isinstance(top, dict) else ()
            alternatives = [{"token": other, "logprob": found} for other, found in others]
            content.append({"token": token, "logprob": value, "top_logprobs": alternatives})
    return {"content": content} if content else None
