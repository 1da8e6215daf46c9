"""What it means that nobody reads any more."""

import asyncio

from penstock.gateway.attendance import Attendance
from tests.virtual_time import run_virtually


class Stops(list):
    """The times at which the run was stopped."""

    def __call__(self):
        self.append(round(asyncio.get_running_loop().time(), 3))


async def stops(on_disconnect, max_detached, *steps):
    """Play ``steps``, ``+`` (a reader comes), ``-`` (one leaves) or seconds that go by."""
    stopped = Stops()
    attendance = Attendance(on_disconnect, max_detached, stopped)
    for step in steps:
        match step:
            case "+":
                attendance.attach()
            case "-":
                attendance.detach()
            case "alone":
                attendance.start_alone()
            case "over":
                attendance.close()
            case seconds:
                await asyncio.sleep(seconds)
    return stopped


def played(*args):
    return run_virtually(stops(*args))


def test_cancel_stops_when_the_last_reader_leaves_and_not_before():
    assert played("cancel", 60, "+", "+", 5, "-", 5, "-", 5) == [10]


def test_grace_waits_for_somebody_to_come_back():
    assert played(30.0, 60, "+", "-", 29, "+", 100, "-", 100) == [159]


def test_continue_is_bounded_too():
    assert played("continue", 60, "alone", 100) == [60]


def test_grace_is_never_longer_than_the_bound():
    assert played(500.0, 60, "+", "-", 100) == [60]


def test_a_run_that_is_over_is_not_stopped_again():
    assert played(30.0, 60, "+", "-", "over", 100, "+", "-", 100) == []


def test_a_reader_that_leaves_after_the_end_leaves_no_timer_behind():
    async def main():
        attendance = Attendance("continue", 3600, Stops())
        attendance.attach()
        attendance.close()
        attendance.detach()
        return asyncio.get_running_loop()._scheduled

    assert run_virtually(main()) == []
