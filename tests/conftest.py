"""What holds for every test: nothing blocks the loop, nothing fails unseen, runs can be repeated.

Warnings are errors (pyproject.toml), so an unclosed socket, file or transport fails the test that
dropped it. Asyncio's debug mode is on. The guards below add what no warning tells.
"""

import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from blockbuster import BlockBusterFunction, blockbuster_ctx

from tests.planted import SEARCH, Capture

# Deadlines measure the machine and not the code. `ci` makes a red run repeatable anywhere;
# HYPOTHESIS_PROFILE=search looks for new examples, and longer.
_UNHURRIED = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=50, derandomize=True, database=None, suppress_health_check=_UNHURRIED
)
hypothesis.settings.register_profile(
    "search", deadline=None, max_examples=2_000, print_blob=True, suppress_health_check=_UNHURRIED
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The waits on the loop's thread that are meant: the journal's write of a tick's batch into the page
# cache (docs/decisions/0005-embedded-store.md), and the ledger's of what a generation used.
_MAY_BLOCK = [
    ("os.write", "penstock/streams/journal.py", {"append"}),
    ("os.write", "penstock/ledger/spool.py", {"append"}),
]


_WITH_THE_WORLD = {
    *("cli", "client", "clients", "deploy", "faults", "ledger", "packages", "server", "streams", "upstream"),
    "test_embedding.py",
}
"""Tests here drive browsers, terminals, sockets and processes, which a busy machine keeps waiting."""


_DEAREST = (
    "tests/faults/test_sigkill.py::",
    "tests/clients/test_cross_origin.py::test_a_page_of_another_origin_can_do_nothing",
    "tests/clients/test_schemathesis.py::test_a_stream_that_is_there_is_as_described",
    "tests/clients/test_durable_conformance.py::",
    "tests/faults/test_secrets.py::",
    "tests/cli/test_help.py::test_the_guide_says_what_the_program_says",
    "tests/packages/test_package.py::",
    "tests/clients/test_viewer.py::",
    "tests/cli/test_guides.py::",
)
"""Tests of ten seconds and more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the dearest begin, so that no process is left with one while the others are done; give those with
    the world a second try, and the summary names each that needed it."""
    items.sort(key=lambda item: not item.nodeid.startswith(_DEAREST))
    for item in items:
        place = item.path.relative_to(Path(__file__).parent).parts
        if place[0] in _WITH_THE_WORLD:
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="session", autouse=True)
def _blocking_calls_fail() -> Iterator[None]:
    """A call of ours that blocks while a loop runs in its thread raises `BlockingError`."""
    with blockbuster_ctx("penstock") as guard:
        for name in ("os.fsync", "os.fdatasync"):
            guard.functions[name] = BlockBusterFunction(None, name, scanned_modules="penstock").activate()
        for name, file, functions in _MAY_BLOCK:
            guard.functions[name].can_block_in(file, functions)
        yield


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """How logs are written is the process's: a gateway inside a test must not leave it to the next."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


_ABOUT_SECRETS = {"test_redaction.py", "test_logs.py", "test_exceptions.py", "test_planted.py"}
"""Tests here put secrets into lines, to see what becomes of them."""


@pytest.fixture(scope="session", autouse=True)
def _what_is_captured_is_searched() -> Iterator[None]:
    """Whatever a test collects of the log is searched for what is planted, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("structlog.testing.LogCapture", Capture)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test in whose time a secret or a prompt was logged (see `tests.planted`)."""
    report = yield
    if item.path.name in _ABOUT_SECRETS:
        SEARCH.take()
        return report
    if report.when == "teardown":
        for name, said in report.sections:
            SEARCH.text(name, said)
        if (found := SEARCH.take()) and report.outcome == "passed":
            report.outcome = "failed"
            report.longrepr = "what is planted was logged:\n  " + "\n  ".join(found)
    return report


class _LoopErrors(logging.Handler):
    """Collects what asyncio only logs: failures that nobody awaited, tasks dropped while pending."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f"\n    {record.exc_info[1]!r}"
        self.messages.append(text)


@pytest.fixture(autouse=True)
def loop_errors() -> Iterator[list[str]]:
    """What the loop's exception handler logged; anything left in here fails the test.

    A test that provokes such an error asserts on the list and clears it.
    """
    handler = _LoopErrors()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)
    if handler.messages:
        pytest.fail("the event loop logged an error:\n  " + "\n  ".join(handler.messages), pytrace=False)
