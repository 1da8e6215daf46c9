"""From settings to rules, and from changed word lists to new rules, without a restart.

A word list is a text file: one entry a line, blank lines and lines that begin with ``#`` are nothing. A
file that was changed is read again within `INTERVAL` seconds, in a thread; one that cannot be used leaves
the rules as they are and is logged. Answers that have begun keep the rules they began with.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock.policies.detectors import DETECTORS
from penstock.policies.patterns import BadPattern, Pattern, PatternRule, compile_pattern
from penstock.policies.rules import MASK, Action, Rule, Rules
from penstock.policies.words import Words

log = structlog.get_logger(__name__)

INTERVAL: Final = 2.0
MAX_LIST_BYTES: Final = 16 << 20
MAX_RULES: Final = 200


class RuleSettings(msgspec.Struct, frozen=True):
    """One rule: exactly one of ``words``, ``words_file``, ``pattern`` and ``detect``."""

    name: str = ""
    words: tuple[str, ...] = ()
    words_file: str = ""
    pattern: str = ""
    match_case: bool = False
    detect: tuple[str, ...] = ()
    action: Action = "mask"
    mask: str = MASK


class BadRule(ValueError):
    """A rule that cannot be used: its number, its setting, and what to write instead."""

    def __init__(self, number: int, part: str, what: str) -> None:
        """``part`` is empty where it is about the whole rule."""
        super().__init__(what)
        self.number = number
        self.part = part
        self.what = what


def read_list(path: str) -> list[str]:
    """Return the entries of a word list. Raises `OSError`, and `ValueError` for what is none."""
    with Path(path).open("rb") as file:
        data = file.read(MAX_LIST_BYTES + 1)
    if len(data) > MAX_LIST_BYTES:
        raise ValueError(f"a list has at most {MAX_LIST_BYTES >> 20} MiB")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("this is not UTF-8 text") from None
    return [entry for line in lines if (entry := line.strip()) and not entry.startswith("#")]


def compile_rules(settings: Sequence[RuleSettings], read: Callable[[str], list[str]] = read_list) -> Rules:
    """Return the rules. Raises `BadRule`."""
    rules, lists, patterns = [], [], list[PatternRule]()
    if len(settings) > MAX_RULES:
        raise BadRule(MAX_RULES, "", f"there are at most {MAX_RULES} rules")
    for number, one in enumerate(settings):
        given = [part for part in ("words", "words_file", "pattern", "detect") if getattr(one, part)]
        if len(given) != 1:
            raise BadRule(number, "", "give one of words, words_file, pattern and detect")
        rules.append(Rule(one.name or _name(one, number), one.action, one.mask))
        lists.append(_entries(one, number, read))
        patterns += [PatternRule(pattern, number) for pattern in _patterns(one, number)]
    words = Words(lists)
    return Rules(tuple(rules), words if words.count else None, tuple(patterns))


def _name(rule: RuleSettings, number: int) -> str:
    return ",".join(rule.detect) or (Path(rule.words_file).stem if rule.words_file else f"rule {number + 1}")


def _entries(rule: RuleSettings, number: int, read: Callable[[str], list[str]]) -> Sequence[str]:
    if not (rule.words or rule.words_file):
        return ()
    part = "words" if rule.words else "words_file"
    try:
        entries = rule.words or read(rule.words_file)
        Words([entries])  # by itself, so that it is known whose entry is bad
    except OSError as error:
        raise BadRule(number, part, f"{rule.words_file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadRule(number, part, str(error)) from None
    return entries


def _patterns(rule: RuleSettings, number: int) -> Sequence[Pattern]:
    if rule.pattern:
        try:
            return [compile_pattern(rule.pattern, ignore_case=not rule.match_case)]
        except BadPattern as error:
            raise BadRule(number, "pattern", str(error)) from None
    found = []
    for name in rule.detect:
        if name not in DETECTORS:
            raise BadRule(
                number, "detect", f"there is no detector '{name}'; there are {', '.join(DETECTORS)}"
            )
        known = DETECTORS[name]
        found.append(compile_pattern(known.pattern, check=known.check, gate=known.gate, tail=known.tail))
    return found


class Rulebook:
    """The rules of one filter as they are now."""

    def __init__(self, name: str, settings: Sequence[RuleSettings]) -> None:
        """Reads the lists, so it is made before the loop runs. Raises `BadRule`."""
        self.name = name
        self._settings = tuple(settings)
        self._files = tuple(one.words_file for one in settings if one.words_file)
        self._seen = self._look()
        self.rules = compile_rules(settings)
        self._group: asyncio.TaskGroup | None = None
        self._watching: asyncio.Task[None] | None = None

    def current(self) -> Rules:
        """Return the rules as they are now."""
        return self.rules

    async def open(self) -> None:
        """Begin to look after the files."""
        if self._files:
            self._group = asyncio.TaskGroup()
            await self._group.__aenter__()
            self._watching = self._group.create_task(self._watch())

    async def aclose(self) -> None:
        """Look no more."""
        if self._watching is not None and self._group is not None:
            self._watching.cancel()
            await self._group.__aexit__(None, None, None)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            await asyncio.to_thread(self.reload)

    def reload(self) -> bool:
        """Read the lists again if a file was changed; say whether there are new rules."""
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.rules = compile_rules(self._settings)
        except BadRule as bad:
            log.error("filter_not_reloaded", filter=self.name, rule=bad.number + 1, reason=bad.what)
            return False
        log.info(
            "filter_reloaded", filter=self.name, entries=self.rules.words.count if self.rules.words else 0
        )
        return True

    def _look(self) -> tuple[tuple[int, int], ...]:
        """Return what tells whether the files were changed."""
        seen = []
        for file in self._files:
            try:
                stat = Path(file).stat()
                seen.append((stat.st_mtime_ns, stat.st_size))
            except OSError:
                seen.append((0, 0))
        return tuple(seen)
