"""A gateway at a glance."""

import msgspec
import pytest
from rich.console import Console

from penstock.cli.glance import Frame, History, milliseconds, picture, seconds, sparkline


def shown(*frames: dict, begin: dict | None = None, trouble: str = "", width: int = 120, height: int = 0):
    history = History()
    history.begin(begin or {})
    for frame in frames:
        history.add(msgspec.convert(frame, Frame))
    console = Console(width=width, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(picture(history, "http://gateway:8080", "12:00:00", trouble, width, height))
    return capture.get()


POINT = {"open": 2, "readers": 3, "started": 1.5, "failed": 0.25, "tokens": 1234.5, "first50": 320.0}
TARGETS = [
    {"name": "openai/gpt-5", "state": "open", "running": 2, "first95": 1500.0, "attempts": 12, "failed": 7}
]
STREAM = {
    "id": "s_0001M8CKGWEHT8D0ZDXKCMJ35P7G",
    "model": "gpt-5",
    "target": "openai/gpt-5",
    "attempts": 2,
    "doing": "streaming",
    "entries": 345,
    "age": 61.0,
    "silent": 12.0,
    "readers": 3,
    "principal": "ada",
}
FRAME = {"point": POINT, "targets": TARGETS, "streams": [STREAM], "totals": {"cost_usd": 1.234}}


def test_figures_targets_and_streams_are_shown():
    text = shown(FRAME)
    assert "penstock  gateway:8080  12:00:00  ready" in text
    for piece in ("streams 2", "readers 3", "failed 0.25/s", "tokens 1,234/s", "320 ms", "spent 1.23 USD"):
        assert piece in text
    target, stream = (
        next(line for line in text.splitlines() if key in line) for key in ("openai", "…CMJ35P7G")
    )
    assert target.split() == ["openai/gpt-5", "open", "2", "–", "1.5", "s", "12", "7"]
    assert "streaming" in stream
    assert "345" in stream


def test_nothing_is_shown_as_nothing():
    text = shown({})
    assert "streams 0" in text
    assert "BREAKER" not in text


def test_what_is_new_and_what_is_odd_is_left_alone():
    text = shown({**FRAME, "novel": {"a": 1}, "point": {**POINT, "novel": 2}})
    assert "streams 2" in text


@pytest.mark.parametrize(("width", "height"), [(40, 12), (80, 24), (200, 60)])
def test_it_fits_the_terminal(width, height):
    many = [{**STREAM, "model": "模型" * 50, "principal": "p" * 200}] * 90
    happened = [{"at": n, "kind": "retry", "stream": f"s_{n}", "target": "t" * 300} for n in range(9)]
    text = shown(
        {**FRAME, "streams": many, "more": 10, "happened": happened, "targets": TARGETS * 20},
        width=width,
        height=height,
    )
    assert len(text.splitlines()) <= height
    assert all(len(line) <= width for line in text.splitlines())
    assert "more" in text


def test_what_went_wrong_is_told_once_and_the_latest_first():
    failure = {"at": 5.0, "id": "s_failed00", "status": "failed", "code": "upstream_error", "model": "m"}
    fine = {"at": 6.0, "id": "s_fine", "status": "completed"}
    opened = {"at": 7.0, "kind": "breaker_open", "target": "p/m"}
    text = shown(
        {"ended": [failure, fine]}, {"happened": [opened]}, begin={"ended": [failure], "happened": []}
    )
    assert [line.strip() for line in text.splitlines()[-2:]] == [
        "breaker open · p/m",
        "failed · upstream_error · m · failed00",
    ]


def test_what_comes_from_outside_cannot_steer_the_terminal():
    text = shown({**FRAME, "streams": [{**STREAM, "model": "\x1b[2Jx", "target": "[bold]y[/bold]"}]})
    assert "\x1b" not in text
    assert "[bold]y" in text


def test_a_gateway_that_is_away_or_not_ready_is_said_to_be():
    assert "lost: it is gone" in shown(FRAME, trouble="lost: it is gone")
    assert "not ready: draining" in shown({**FRAME, "unready": "draining"})


def test_figures_are_told_as_people_read_them():
    assert [milliseconds(value) for value in (None, 0.4, 999.0, 1500.0)] == ["–", "0 ms", "999 ms", "1.5 s"]
    assert [seconds(value) for value in (5, 120, 7200)] == ["5 s", "2 min", "2 h"]
    assert sparkline([0, 4, 8]) == " ▄█"
    assert sparkline([]) == sparkline([0, 0]) == ""
