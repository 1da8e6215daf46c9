"""Every line that the log can have stands in the guide, and names the request and the stream it is about."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.events import ABOUT, EVENTS, documented, nameless

SOURCE = Path(__file__).parents[1] / "src/penstock"

VERBS = ("debug", "info", "warning", "error", "exception", "critical")

LOGGER = re.compile(r"^(\w+) = structlog.get_logger\(__name__\)$", re.MULTILINE)

IMPORTS_TELL = "from penstock.streams.committer import Committer, tell"

ELSEWHERE: dict[str, set[str]] = {
    "gateway/listings.py": {"models_available", "models_unavailable"},
    "gateway/run.py": {"retry", "fallback", "continuation"},
    "server/descriptors.py": {"few_descriptors"},
    "telemetry/alerts.py": {"alert_fires", "alert_still", "alert_recovered"},
    "telemetry/logs.py": {"library", "log_lines_lost"},
}
"""Events whose names, or whose verbs, are not written where they are told."""


class Told(ast.NodeVisitor):
    """The calls of `log.info` and its siblings in one module, and how often such a verb is named at all."""

    def __init__(self, name: str, log: str = "") -> None:
        self.name = name
        self.log = log
        self.calls: list[ast.Call] = []
        self.named = 0
        self.told: list[str] = []

    def visit_Call(self, node: ast.Call) -> None:
        if self.is_verb(node.func):
            self.calls.append(node)
        elif isinstance(node.func, ast.Name) and node.func.id == "tell" and self.name.startswith("streams/"):
            self.told.append(node.args[1].value)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.named += self.is_verb(node)
        self.generic_visit(node)

    def is_verb(self, node: ast.AST) -> bool:
        if not (isinstance(node, ast.Attribute) and node.attr in VERBS):
            return False
        return isinstance(node.value, ast.Name) and node.value.id == self.log


def modules() -> Iterator[Told]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        log = LOGGER.findall(text)
        if log or IMPORTS_TELL in text:
            told = Told(path.relative_to(SOURCE).as_posix(), *log)
            told.visit(ast.parse(text))
            yield told


def event_of(call: ast.Call) -> str:
    first = call.args[0]
    return first.value if isinstance(first, ast.Constant) else ""


def names(call: ast.Call) -> set[str]:
    """Return which of the ids the call tells."""
    found = {keyword.arg for keyword in call.keywords if keyword.arg}
    others = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]
    if any("ids" in one or one in ("whose", "said") for one in others):
        found |= {"request_id", "stream"}
    return found


def test_the_guide_lists_every_event_that_is_told_and_no_other():
    told = set().union(*ELSEWHERE.values())
    for module in modules():
        unclear = [call for call in module.calls if not event_of(call)]
        if len(module.calls) != module.named or unclear:
            assert module.name in ELSEWHERE, f"{module.name} tells events that cannot be read from its text"
        told |= {event for call in module.calls if (event := event_of(call))} | set(module.told)
    assert told == set(EVENTS)
    assert len(EVENTS) == len(list(documented())), "an event stands in the guide twice"
    assert set(EVENTS.values()) <= set(ABOUT)


def test_every_line_about_a_stream_or_a_request_names_it_where_it_is_told():
    for module in modules():
        for call in module.calls:
            events = {event_of(call)} if event_of(call) else ELSEWHERE[module.name]
            for event in events:
                missing = set(ABOUT[EVENTS[event]]) - names(call)
                assert not missing, f"{module.name}:{call.lineno} tells {event} without {missing}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ({"event": "retry", "request_id": "r", "stream": "s"}, []),
        ({"event": "retry", "request_id": "r"}, ["retry without stream"]),
        ({"event": "stream_closed", "stream": "s", "request_id": ""}, ["stream_closed without request_id"]),
        ({"event": "request"}, ["request without request_id"]),
        ({"event": "draining"}, []),
        ({"event": "invented"}, ["invented is not in logs.md"]),
    ],
)
def test_a_line_that_does_not_say_whom_it_is_about_is_found(line, wrong):
    assert list(nameless(json.dumps(line) + '\n{"event": "ret')) == wrong
