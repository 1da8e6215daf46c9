"""Usage at rest: rows that are safe at once, in the database soon, there once, and summed exactly."""

import asyncio
import os

import pytest
from structlog.testing import capture_logs

from penstock.ledger.database import Database, LedgerUnusable
from penstock.ledger.ledger import Ledger
from penstock.ledger.spool import Spool, read_rows
from penstock.ledger.usage import insert_rows, spent_by_tokens, spent_since, summarize
from penstock.types.usage import USD, Question, UsageRow

NOON = 1_800_000_000.0 // 86_400 * 86_400 + 43_200


def row(stream="s_1", attempt=1, **more):
    about = {"principal": "app", "model": "m", "provider": "p", "status": "completed", "at": NOON}
    return UsageRow(stream, attempt, **{**about, "cost": 5, "input_tokens": 2, "output_tokens": 3, **more})


def test_a_row_that_is_put_in_again_changes_nothing(database):
    for _ in range(2):
        database.run(insert_rows, [row(), row(attempt=2), row("s_2", output_tokens=4)])
    database.run(insert_rows, [])
    (total,) = database.run(summarize, Question())
    assert (total.generations, total.attempts, total.output_tokens, total.cost) == (2, 3, 10, 15)


def test_sums_are_taken_by_everything_that_can_be_asked_for(database):
    rows = [
        row("s_1", team="a", key="k1", cost=10**15, cached_tokens=1, estimated=True),
        row("s_2", team="b", principal="app/alice", cost=10**15 + 1, at=NOON + 86_400),
        row("s_3", team="b", principal="apple", model="n", cost=None, preset="q", route="r", status="failed"),
        row("s_4", 0, team="b", model="n", cost=None, status="failed"),
    ]
    database.run(insert_rows, rows)

    def by(name, **more):
        return {
            one.name: (one.generations, one.cost) for one in database.run(summarize, Question(name, **more))
        }

    (total,) = database.run(summarize, Question())
    assert (total.cost, total.attempts, total.estimated, total.unpriced) == (2 * 10**15 + 1, 3, 1, 1)
    assert by("team") == {"b": (3, 10**15 + 1), "a": (1, 10**15)}
    assert by("principal") == {"app": (2, 10**15), "app/alice": (1, 10**15 + 1), "apple": (1, 0)}
    assert by("model") == {"m": (2, 2 * 10**15 + 1), "n": (2, 0)}
    assert [one.name for one in database.run(summarize, Question("day"))] == ["2027-01-15", "2027-01-16"]
    assert by("total", principal="app") == {"total": (3, 2 * 10**15 + 1)}
    assert by("total", principal="a%") == {}
    assert by("total", since=NOON + 1) == {"total": (1, 10**15 + 1)}
    assert by("total", until=NOON + 1, team="b", model="n") == {"total": (2, 0)}
    for name in ("key", "provider", "target", "route", "preset", "status"):
        assert sum(count for count, _ in by(name).values()) == 4


def test_what_was_spent_is_told_by_who_pays(database):
    rows = [
        row("s_1", principal="app/alice", team="t", cost=3, account="token:1"),
        row("s_2", principal="app/bob", team="t", cost=4, account="token:1"),
        row("s_3", principal="app", cost=5),
        row("s_4", cost=100, at=NOON - 1, account="token:2"),
        row("s_5", cost=None),
    ]
    database.run(insert_rows, rows)
    assert sorted(database.run(spent_since, NOON)) == [("app", "", 5), ("app", "t", 7)]
    assert database.run(spent_by_tokens, NOON) == {"token:1": 7}


async def opened(url, folder, **more):
    ledger = Ledger(await asyncio.to_thread(Database, url), folder, **more)  # as before the loop runs
    await ledger.open()
    return ledger


async def test_rows_are_summed_as_soon_as_they_are_asked_for(url, tmp_path):
    ledger = await opened(url, tmp_path / "spool")
    ledger.record_nowait([row(f"s_{n}") for n in range(1_200)])
    (total,) = await ledger.summarize(Question())
    assert total.generations == 1_200
    ledger.record_nowait([row("s_more")])
    await ledger.aclose()
    again = await opened(url, tmp_path / "spool")
    (total,) = await again.summarize(Question())
    assert total.generations == 1_201
    await again.aclose()


async def test_a_ledger_in_memory_needs_no_folder():
    ledger = await opened("", None)
    ledger.record_nowait([row()])
    assert len(await ledger.summarize(Question())) == 1
    await ledger.aclose()


@pytest.fixture
def left_over(tmp_path):
    """The spool of a process that was killed in mid-write."""
    folder = tmp_path / "spool"
    spool = Spool(folder)
    spool.open()
    assert spool.append([row("s_1"), row("s_2")])
    assert spool.append([row("s_3")])
    with (folder / "1.jsonl").open("ab") as file:
        file.write(b'{"stream":"s_4","attem')
    spool.close()
    return folder


async def test_what_a_killed_process_had_spooled_is_put_in_first_and_once(tmp_path, left_over):
    url, folder = f"sqlite:///{tmp_path / 'l.sqlite'}", left_over
    seen = []

    def on_open(connection):
        seen.append(summarize(connection, Question())[0].generations)
        return lambda: seen.append("ready")

    with capture_logs() as logs:
        ledger = await opened(url, folder, on_open=on_open)
    assert seen == [3, "ready"]
    assert [log["event"] for log in logs] == ["usage_row_unreadable"]
    assert [path.name for path in folder.iterdir()] == ["1.jsonl"]
    await ledger.aclose()
    again = await opened(url, folder)
    assert (await again.summarize(Question()))[0].generations == 3
    await again.aclose()


async def test_while_the_database_is_away_rows_wait_and_none_is_lost(tmp_path):
    url, folder = f"sqlite:///{tmp_path / 'l.sqlite'}", tmp_path / "spool"
    ledger = await opened(url, folder)
    away = await asyncio.to_thread(Database, f"sqlite:///{tmp_path / 'nowhere' / 'l.sqlite'}")
    real, ledger.database._engine = ledger.database._engine, away._engine
    with capture_logs():
        ledger.record_nowait([row("s_1")])
        await ledger.flush()
        ledger.record_nowait([row("s_2")])
        await ledger.flush()
    assert "2 rows wait" in repr(ledger)
    ledger.database._engine = real
    assert (await ledger.summarize(Question()))[0].generations == 2
    assert ledger.lost == 0
    await ledger.aclose()
    away.close()


async def test_where_the_disk_is_full_rows_wait_in_memory_and_the_bound_is_told(tmp_path, monkeypatch):
    ledger = await opened(f"sqlite:///{tmp_path / 'l.sqlite'}", tmp_path / "spool")
    os.close(ledger._spool._file)
    ledger._spool._file = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("penstock.ledger.ledger.MAX_WAITING", 2)
    with capture_logs() as logs:
        ledger.record_nowait([row("s_1"), row("s_2")])
        ledger.record_nowait([row("s_3")])
    assert [log["event"] for log in logs] == ["usage_lost"]
    assert (await ledger.summarize(Question()))[0].generations == 2
    await ledger.aclose()


async def test_a_ledger_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnusable):
        await opened(f"sqlite:///{tmp_path / 'l.sqlite'}", tmp_path / "file")


def test_a_spool_is_bounded_and_its_owners_alone(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "spool")
    spool.open()
    assert spool.append([row()])
    (path,) = spool.left()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(read_rows(path, 10)) == [[row()]]
    monkeypatch.setattr("penstock.ledger.spool.MAX_BYTES", spool.bytes + 10)
    assert not spool.append([row("s_2")])
    spool.close()


async def test_many_flushes_and_many_rows_at_once_lose_and_double_nothing(url, tmp_path):
    ledger = await opened(url, tmp_path / "spool")

    async def write(number):
        for count in range(20):
            ledger.record_nowait([row(f"s_{number}_{count}", cost=USD)])
            if count % 5 == 0:
                await ledger.flush()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(write(number))
    (total,) = await ledger.summarize(Question())
    assert (total.generations, total.cost) == (200, 200 * USD)
    await ledger.aclose()
