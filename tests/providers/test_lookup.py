"""A library that waits, asked in a thread: however many ask and leave, it is asked once at a time."""

import asyncio
import threading

import pytest

from penstock.providers.lookup import Lookup


class Library:
    """Answers once it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = threading.Event()

    def call(self) -> int:
        self.asked += 1
        assert self.may.wait(30)
        if self.asked == 2:
            raise ValueError("No.")
        return self.asked


async def test_those_who_leave_start_nothing_anew():
    library = Library()
    lookup = Lookup(library.call)
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await lookup.get()
    assert lookup.running
    waiting = [asyncio.ensure_future(lookup.get()) for _ in range(3)]
    await asyncio.sleep(0)
    library.may.set()
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    assert not lookup.running
    with pytest.raises(ValueError, match="No"):  # no answer is kept: the next is a call of its own
        await lookup.get()
    assert await lookup.get() == 3
