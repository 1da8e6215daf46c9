"""Reading a client's JSON body into checked values, with errors that name the field.

Owns what every dialect's ``parse_request`` needs: the body as one object, a part of it as a struct, and
the four ways in which that fails, each a `ClientError` 400 that says which field is wrong and what is
expected there. No dialect's field is named here.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from penstock.types.errors import ClientError
from penstock.types.requests import Extra

_T = TypeVar("_T")

MAX_METADATA: Final = 16
MAX_METADATA_NAME: Final = 64
MAX_METADATA_VALUE: Final = 512
"""Bounds of what a client may note with a stream, as OpenAI has them."""

_MISSING: Final = re.compile(r"Object missing required field `([^`]+)`")
_EXPECTED: Final = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_WHERE: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_WORDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that ``body`` is. Raises `ClientError` `invalid_json` or `invalid_type`."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else "is not valid JSON"
        raise ClientError(
            f"The request body {what}. Send one JSON object in UTF-8.", code="invalid_json"
        ) from None
    if not isinstance(value, dict):
        raise ClientError(
            'The request body must be a JSON object: {"model": …, "messages": […]}.', code="invalid_type"
        )
    return value


def convert(value: Any, kind: type[_T], path: str) -> _T:
    """Return ``value`` as ``kind``; raises `ClientError` that names the field below ``path``."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = str(error)
    below = found[1] if (found := _WHERE.search(text)) else ""
    if absent := _MISSING.search(text):
        below = f"{below}.{absent[1]}" if below else absent[1]
        raise missing(_join(path, below))
    param = _join(path, below)
    wrong = _EXPECTED.search(text)
    expected, got = (_words(wrong[1]), _words(wrong[2])) if wrong else ("another value", "this one")
    raise ClientError(f"'{param}' must be {expected}, not {got}.", code="invalid_type", param=param)


def missing(param: str) -> ClientError:
    """Return the error for a field that must be there."""
    return ClientError(f"'{param}' is required and missing.", code="missing_required_parameter", param=param)


def refused(message: str, param: str) -> ClientError:
    """Return the error for a value that cannot be had."""
    return ClientError(message, code="invalid_value", param=param)


def check_metadata(given: Mapping[str, Any] | None) -> None:
    """Refuse metadata above the bounds, and values that are no texts; raises `ClientError`."""
    if len(given or {}) > MAX_METADATA or any(
        not isinstance(value, str) or len(name) > MAX_METADATA_NAME or len(value) > MAX_METADATA_VALUE
        for name, value in (given or {}).items()
    ):
        raise refused(
            f"metadata has at most {MAX_METADATA} members, with names of up to {MAX_METADATA_NAME} "
            f"and values of up to {MAX_METADATA_VALUE} characters.",
            "metadata",
        )


def unknown(raw: Mapping[str, Any], kind: type[msgspec.Struct]) -> Extra:
    """Return what ``kind`` has no field for, or what it has but was given as null, "not given"."""
    known = frozenset(kind.__struct_fields__)
    return {key: value for key, value in raw.items() if key not in known or value is None}


def others(raw: Mapping[str, Any], *known: str) -> Extra | None:
    """Return what ``raw`` has besides ``known``; None for nothing."""
    return {key: value for key, value in raw.items() if key not in known} or None


def _words(types: str) -> str:
    names = [_WORDS.get(name, name) for name in types.split(" | ")]
    if len(names) > 1 and "null" in names:
        names.remove("null")
    return " or ".join(names)


def _join(path: str, below: str) -> str:
    return f"{path}.{below}" if path and below else path or below
