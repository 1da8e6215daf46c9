"""The log as a whole: what a line holds, from whoever logs."""

import io
import json
import logging
import os
import pty
import re
import threading

import pytest
import structlog

from penstock.telemetry.logs import MAX_VALUE, LogSettings, logging_to
from penstock.telemetry.redaction import Redactor

log = structlog.get_logger("penstock.test")

SECRET = "planted-secret-0001"


@pytest.fixture
def told(tmp_path):
    """Call it with what shall log, and get the lines."""

    def run(act, **settings) -> list[dict]:
        path = tmp_path / "log"
        with (
            path.open("w") as file,
            logging_to(file, LogSettings(**settings), Redactor([SECRET])),
        ):
            act()
        return [json.loads(line) for line in path.read_text().splitlines()]

    return run


def test_a_line_is_an_object_with_time_level_and_event(told):
    (line,) = told(lambda: log.info("happened", stream="s_1", count=3))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {"level": "info", "event": "happened", "stream": "s_1", "count": 3}


@pytest.mark.parametrize(("level", "kept"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_below_the_level_is_not_told(told, level, kept):
    def act():
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)(name)

    assert len(told(act, level=level)) == kept


def test_secrets_are_taken_out_of_events_errors_and_names(told):
    def act():
        log.info(f"about {SECRET}", **{SECRET: 1}, key=SECRET, nested={"a": [SECRET]})
        try:
            raise ValueError(f"bad key {SECRET}")
        except ValueError as error:
            log.error("failed", exc_info=error)
            logging.getLogger("somebody").exception("failed with %s", SECRET)

    lines = told(act)
    assert len(lines) == 3
    assert SECRET not in json.dumps(lines)
    assert lines[1]["error"] == "ValueError: bad key ***"
    assert "test_logs.py" in lines[1]["exception"]


def test_what_libraries_say_is_in_the_log_from_warnings_on(told):
    def act():
        logging.getLogger("httpx").info("GET https://…")
        logging.getLogger("uvicorn.error").warning("odd %s", "thing")

    (line,) = told(act)
    assert (line["event"], line["logger"], line["said"]) == ("library", "uvicorn.error", "odd thing")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_nobody_caught_in_a_thread_is_in_the_log(told):
    def fail():
        raise LookupError(SECRET)

    def act():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

    (line,) = told(act)
    assert (line["event"], line["error"]) == ("uncaught", "LookupError: ***")


def test_values_are_bounded_and_odd_ones_told(told):
    long, half, odd = told(
        lambda: (
            log.info("long", text="x" * 100_000),
            log.info("half", text="a\ud800"),
            log.info("odd", thing=object, number=float("inf"), data=b"\xff"),
        )
    )
    assert len(long["text"]) == MAX_VALUE + 1
    assert half["text"] == "a\ud800"
    assert "object" in odd["thing"]


def test_on_a_terminal_lines_are_for_a_person_who_is_not_steered():
    main, terminal = pty.openpty()
    with (
        os.fdopen(terminal, "w") as file,
        logging_to(file, LogSettings(), Redactor([SECRET])),
    ):
        log.info("happened", path="/\x1b[2Jx", key=SECRET)
        try:
            raise ValueError("bad")
        except ValueError as error:
            log.error("failed", exc_info=error)
    shown = os.read(main, 1 << 16).decode()
    os.close(main)
    assert "happened" in shown
    assert "\x1b[2J" not in shown
    assert SECRET not in shown
    assert "ValueError: bad" in shown


def test_what_was_set_up_is_taken_back(told):
    before = list(logging.getLogger().handlers), threading.excepthook
    told(lambda: None)
    assert (list(logging.getLogger().handlers), threading.excepthook) == before


def test_a_file_without_a_descriptor_is_refused():
    with pytest.raises(io.UnsupportedOperation), logging_to(io.StringIO(), LogSettings(), Redactor()):
        pass
