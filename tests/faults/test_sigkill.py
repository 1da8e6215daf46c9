"""A token shown is a token stored: processes are killed at any instant, and every reader comes back.

PENSTOCK_KILLS sets how many lives the long test takes (`make torture` takes many), PENSTOCK_SEED
where its chances begin.
"""

import asyncio
import os
import random
import secrets
from collections.abc import Awaitable, Callable

import pytest

from tests.faults import doomed
from tests.faults.process import Gateway, eventually
from tests.faults.readers import Ledger, Reader, check, listed

KILLS = int(os.environ.get("PENSTOCK_KILLS", "5"))
SEED = int(os.environ.get("PENSTOCK_SEED", "1"))
STREAMS = 5
DOOMED = (doomed.__file__,)


MODELS = {"durable": {"targets": [{"provider": "demo", "model": "demo-long"}], "on_restart": "continue"}}


def asking(chance: random.Random, model: str = "demo-long", **script: object) -> dict:
    """The body of a creation: answers of 10 to 600 tokens, at some hundred a second."""
    pace = {
        "tokens": chance.choice([10, 50, 200, 600]),
        "tokens_per_second": chance.choice([200, 500, 800]),
        "first_token_delay": chance.choice([0, 0.05]),
    }
    message = {"role": "user", "content": f"Tell me {chance.random()}"}
    request = {"model": model, "messages": [message], "penstock_script": {**pace, **script}}
    return {"request": request}


class Crowd:
    """The readers of one life: each stream has the client that asked for it, and two others."""

    def __init__(self, gateway: Gateway, ledger: Ledger, group: asyncio.TaskGroup, chance: random.Random):
        self.gateway = gateway
        self.ledger = ledger
        self.group = group
        self.chance = chance
        self.readers: list[Reader] = []
        self.creators: dict[str, tuple[Reader, dict]] = {}
        self.tasks: list[asyncio.Task] = []
        self.cancelled: set[str] = set()

    def create(self, model: str = "demo-long", **script: object) -> Reader:
        body, key = asking(self.chance, model, **script), secrets.token_hex(8)
        creator = Reader(self.gateway, self.ledger, create=body, key=key)
        creator.named = self._join
        self.creators[key] = creator, body
        self._follow(creator)
        return creator

    def _join(self, creator: Reader) -> None:
        """Others read along: one from the start, one that comes later and begins somewhere."""
        self._follow(Reader(self.gateway, self.ledger, stream=creator.stream, after="-1"))
        wait = self.chance.uniform(0.05, 0.5)
        self.tasks.append(self.group.create_task(self._come_later(creator, wait)))

    async def _come_later(self, creator: Reader, wait: float) -> None:
        await asyncio.sleep(wait)
        known = len(self.ledger.streams.get(creator.stream, ()))
        after = self.chance.choice(["0", "-1", str(self.chance.randint(0, known))])
        reader = Reader(self.gateway, self.ledger, stream=creator.stream, after=after)
        self.readers.append(reader)
        await reader.follow()

    def _follow(self, reader: Reader) -> None:
        self.readers.append(reader)
        self.tasks.append(self.group.create_task(reader.follow()))

    async def cancel_some(self) -> None:
        """Cancel an open stream now and then, and note those that were said to be cancelled."""
        while self.gateway.alive:
            await asyncio.sleep(self.chance.uniform(0, 0.3))
            open_ones = [c for c, _ in self.creators.values() if c.position > 5 and c.end is None]
            if open_ones:
                stream = self.chance.choice(open_ones).stream
                try:
                    answer = await self.gateway.call("POST", f"/v1/streams/{stream}/cancel")
                except OSError:
                    return  # it is dead
                if answer.json["status"] == "cancelled":
                    self.cancelled.add(stream)

    async def all_told(self) -> None:
        """Wait until every reader was told that there is no more."""
        while waiting := [task for task in self.tasks if not task.done()]:
            await asyncio.wait(waiting)
        for reader in self.readers:
            assert reader.statuses[-1] == 204
            assert reader.end is not None
        assert {status for reader in self.readers for status in reader.statuses} == {200, 204}

    async def verify(self) -> dict[str, str]:
        """Hold all that was shown against the log; return how the streams ended."""
        ends = {}
        for stream, seen in self.ledger.streams.items():
            end = await check(self.gateway, self.ledger, stream)
            ends[stream] = end["status"]
            if end["status"] == "interrupted":
                assert (end["code"], end["retryable"]) == ("gateway_restarted", True)
            else:
                assert end["status"] in ("completed", "cancelled")
            assert end["status"] == "cancelled" or stream not in self.cancelled
            await self.resume_at(stream, self.chance.choice(sorted(seen)))
        for key, (creator, body) in self.creators.items():
            again = await self.gateway.insist("POST", "/v1/streams", body, Idempotency_Key=key)
            assert (again.status, again.headers["stream-id"]) == (200, creator.stream)
        return ends

    async def resume_at(self, stream: str, position: int) -> None:
        """Resume in one of the ways there are from an entry that was shown."""
        cursor = f"{stream}~{position:016}"
        reader = Reader(
            self.gateway, self.ledger, stream=stream, after=self.chance.choice([cursor, str(position)])
        )
        await reader.follow()
        assert reader.end is not None


Live = Callable[[Crowd], Awaitable[None]]


async def one_life(gateway: Gateway, live: Live, chance: random.Random, everything: Ledger, **environ: str):
    """Serve a crowd until ``live`` has ended the process; hold what was shown against the next one's log.

    Return how the streams ended.
    """
    ledger = Ledger()
    async with asyncio.TaskGroup() as group:
        crowd = Crowd(gateway, ledger, group, chance)
        await live(crowd)
        await eventually(lambda: not gateway.alive, "it lives on")
        keeper = group.create_task(gateway.keep_alive(**environ))
        await crowd.all_told()
        ends = await crowd.verify()
        await eventually(lambda: gateway.alive)
        keeper.cancel()
    everything.streams.update(ledger.streams)
    return list(ends.values())


async def judge(gateway: Gateway, everything: Ledger) -> None:
    """After all lives: all that was ever shown is there, every stream has ended, those that nobody was told
    of too, and the gateway has nothing to complain of."""
    there = await listed(gateway)
    assert everything.streams.keys() <= there.keys()
    assert set(there.values()) <= {"completed", "cancelled", "interrupted"}
    for stream in everything.streams:
        await check(gateway, everything, stream)
    await gateway.stop()
    assert not [line for line in gateway.log() if line["level"] in ("error", "critical")]


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_whatever_was_shown_is_in_the_log_after_a_kill_at_any_instant(tmp_path):
    chance = random.Random(SEED)
    everything, ends = Ledger(), []

    async def live(crowd: Crowd) -> None:
        for _ in range(STREAMS):
            crowd.create()
        await asyncio.sleep(chance.choice([0.02, 0.2, 0.8]) * chance.random())
        gateway.kill()

    with Gateway(tmp_path) as gateway:
        await gateway.start()
        for _ in range(KILLS):
            ends += await one_life(gateway, live, chance, everything)
        await judge(gateway, everything)
    assert len(ends) == KILLS * STREAMS
    assert ends.count("interrupted") > KILLS
    assert ends.count("completed") >= KILLS / 2


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_answers_that_are_gone_on_with_are_whole_after_a_kill_at_any_instant(tmp_path):
    """As above, but no answer is lost either: the next process takes up what the last one left."""
    chance = random.Random(SEED)
    everything, ends = Ledger(), []
    kills = max(2, KILLS // 4)

    async def live(crowd: Crowd) -> None:
        for _ in range(STREAMS):
            crowd.create("durable")
        await asyncio.sleep(chance.choice([0.02, 0.2, 0.8]) * chance.random())
        gateway.kill()

    with Gateway(tmp_path, models=MODELS) as gateway:
        await gateway.start()
        for _ in range(kills):
            ends += await one_life(gateway, live, chance, everything)
        await judge(gateway, everything)
        assert ends == ["completed"] * (kills * STREAMS)
        assert len(gateway.log("taken_up")) > kills


POINTS = [
    "created:half", "created:whole", "records:half", "records:whole", "closing:half", "closing:whole",
    "header:half", "sealing:before", "sealing:within", "sealing:after", "clearing:noted", "clearing:unlinked",
    "recovery:within", "recovery:committed", "recovery:unlinked",
]  # fmt: skip
"""Where `doomed` dies. A recovery's are reached at once, when it takes up what another death left."""


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_whatever_was_shown_is_in_the_log_after_a_kill_at_the_worst_moment_of_anything(tmp_path):
    chance = random.Random(SEED)
    everything, ends = Ledger(), []

    async def live(crowd: Crowd) -> None:
        """Ask for answers until the process dies, and see that it does: it may have had its death already."""
        canceller = crowd.group.create_task(crowd.cancel_some())
        for _ in range(20 if gateway.environ else 1):
            crowd.create(tokens=chance.choice([10, 400]), tokens_per_second=900)
            await asyncio.sleep(0.1)
            if not gateway.alive:
                break
        gateway.kill()
        await canceller

    with Gateway(tmp_path, program=DOOMED) as gateway:
        await gateway.start(PENSTOCK_DOOM="records:half/99")
        for point in POINTS * max(1, KILLS // 20):
            # A recovery does everything once, and that is the first time.
            nth = 1 if point.startswith("recovery") else chance.randint(3, 6)
            ends += await one_life(gateway, live, chance, everything, PENSTOCK_DOOM=f"{point}/{nth}")
        await one_life(gateway, live, chance, everything)
        await judge(gateway, everything)
        assert {line["point"].partition("/")[0] for line in gateway.log("doomed")} == set(POINTS) | {
            "records:half"
        }
    assert {"interrupted", "completed", "cancelled"} <= set(ends)
