"""Publications over real stores: what is appended is there, for its owner, over restarts, within bounds."""

import asyncio

import pytest

from penstock.gateway.publication import Fork, StreamClosed, Wanted, check_path
from penstock.gateway.publications import Publications, PublicationSettings
from penstock.gateway.trimming import SLACK, entries_gone
from penstock.gateway.writers import COMPLETE_EVERY, Producer
from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.memory import MemoryStore
from penstock.streams.parcels import MAX_PARCEL, Mark, Piece, Trimmed, decode_parcel
from penstock.streams.store import StoreFailure
from penstock.types.errors import ClientError, GatewayError, StorageError
from penstock.types.principals import Principal
from tests.streams.storing import Clock, eventually

ME = Principal("me")
TEXT = Wanted("text/plain")


class House:
    """Publications in a store that can be closed and opened again."""

    def __init__(self, make, **settings):
        self.wall = Clock()
        self.settings = PublicationSettings(**settings)
        self.make = make
        self.store = None

    async def __aenter__(self):
        self.store = self.make(self.wall)
        await self.store.open()
        self.publications = Publications(self.store, self.settings, wall=self.wall)
        await self.publications.open()
        return self

    async def __aexit__(self, *_):
        self.publications.leave()
        await self.store.aclose()

    async def restart(self):
        await self.__aexit__()
        await self.__aenter__()

    async def create(self, path, *contents, wanted=TEXT, principal=ME):
        made, new = await self.publications.create(principal, path, wanted, [Piece(c) for c in contents])
        assert new
        return made

    async def append(self, path, *contents, principal=ME, **more):
        publication = await self.publications.find(principal, path)
        return await self.publications.append(publication, [Piece(c) for c in contents], **more)

    async def content(self, path, principal=ME):
        stream = (await self.publications.find(principal, path)).open
        content, after = b"", 0
        while after < stream.tail.entries:
            for entry in await stream.read(after):
                if entry.seq <= stream.tail.entries:
                    parcel = decode_parcel(entry.line)
                    content += parcel.content
                    assert parcel.end == len(content)
                after = entry.seq
        assert stream.tail.bytes == len(content)
        return content

    async def refused(self, doing):
        with pytest.raises(ClientError) as refused:
            await doing
        return refused.value.code


@pytest.fixture(params=["memory", "embedded"])
def make(request, tmp_path):
    if request.param == "memory":
        return lambda wall: MemoryStore(wall=wall)
    return lambda wall: EmbeddedStore(tmp_path / "data", EmbeddedSettings(), wall=wall)


@pytest.fixture
def on_disk(tmp_path):
    return lambda wall: EmbeddedStore(tmp_path / "data", EmbeddedSettings(), wall=wall)


async def test_what_is_appended_is_there_in_order(make):
    async with House(make) as house:
        await house.create("logs/app", b"one ")
        done = await house.append("logs/app", b"two ", b"three")
        assert done.mark == Mark(3, 13)
        assert await house.content("logs/app") == b"one two three"


async def test_another_principal_sees_nothing_and_may_use_the_same_path(make):
    other = Principal("other")
    async with House(make) as house:
        await house.create("logs/app", b"mine")
        assert await house.refused(house.publications.find(other, "logs/app")) == "stream_not_found"
        assert house.publications.list(other, "", "", 10) == []
        await house.create("logs/app", b"other's", principal=other)
        assert await house.content("logs/app") == b"mine"
        assert await house.content("logs/app", other) == b"other's"


async def test_equal_creations_at_once_make_one(make):
    async with House(make) as house:
        made = await asyncio.gather(
            *[house.publications.create(ME, "a", TEXT, [Piece(b"x")]) for _ in range(5)]
        )
        assert sorted(new for _, new in made) == [False] * 4 + [True]
        assert await house.content("a") == b"x"


async def test_appends_at_once_are_all_there_each_whole(make):
    async with House(make) as house:
        await house.create("a")
        await asyncio.gather(*[house.append("a", bytes([65 + n]), bytes([97 + n])) for n in range(20)])
        content = await house.content("a")
        assert sorted(content[n : n + 2] for n in range(0, 40, 2)) == [
            bytes([65 + n, 97 + n]) for n in range(20)
        ]


async def test_a_duplicate_is_answered_only_once_the_first_is_stored(make):
    async with House(make) as house:
        await house.create("a")
        publication = await house.publications.find(ME, "a")
        twice = [
            house.publications.append(publication, [Piece(b"x")], producer=Producer("p", 0, 0))
            for _ in range(2)
        ]
        first, second = await asyncio.gather(*twice)
        assert (first.duplicate, second.duplicate) == (False, True)
        assert second.mark == Mark(1, 1)
        assert await house.content("a") == b"x"


async def test_everything_is_there_after_a_restart_and_goes_on(on_disk):
    async with House(on_disk) as house:
        await house.create("open", b"1")
        for seq in range(COMPLETE_EVERY + 5):
            await house.append("open", b"%d" % (seq % 10), producer=Producer("p", 0, seq))
        await house.create("closed", b"all", wanted=Wanted("text/plain", closed=True))
        before = await house.content("open")
        await house.restart()
        assert await house.content("open") == before
        again = await house.append("open", b"?", producer=Producer("p", 0, COMPLETE_EVERY + 4))
        assert again.duplicate
        done = await house.append("open", b"!", producer=Producer("p", 0, COMPLETE_EVERY + 5))
        assert done.mark.bytes == len(before) + 1
        assert await house.content("open") == before + b"!"
        with pytest.raises(StreamClosed) as closed:
            await house.append("closed", b"more")
        assert closed.value.mark == Mark(1, 3)
        assert [p.config.path for p in house.publications.list(ME, "", "", 9)] == ["closed", "open"]


async def test_how_it_was_closed_and_with_what_digest_is_remembered(on_disk):
    async with House(on_disk) as house:
        await house.create("a")
        end = {"close": True, "producer": Producer("p", 0, 0), "digest": "sha-256=:x:"}
        assert not (await house.append("a", b"end", **end)).duplicate
        await house.restart()
        assert (await house.append("a", b"end", **end)).duplicate
        assert (await house.publications.find(ME, "a")).digest == "sha-256=:x:"


async def test_a_fork_reads_on_where_the_other_stream_has_what_it_begins_with(make):
    async with House(make) as house:
        await house.create("a", b"one", b"two")
        await house.create("b", b"B", wanted=Wanted("", fork=Fork("a", Mark(1, 3), 2)))
        await house.append("a", b"three")
        assert await house.content("b") == b"onetwB"
        await house.create("c", b"C", wanted=Wanted("", fork=Fork("b")))
        assert await house.content("c") == b"onetwBC"
        assert (await house.publications.find(ME, "c")).config.content_type == "text/plain"


async def test_what_forks_need_stays_when_its_stream_is_deleted_over_a_restart(on_disk):
    async with House(on_disk) as house:
        await house.create("a", b"old ", wanted=Wanted("text/plain", closed=True))
        await house.create("b", b"new", wanted=Wanted("", fork=Fork("a")))
        await house.publications.erase(await house.publications.find(ME, "a"))
        for _ in range(2):
            assert await house.content("b") == b"old new"
            assert await house.refused(house.publications.find(ME, "a")) == "stream_gone"
            assert await house.refused(house.create("a")) == "stream_deleted"
            await house.restart()
        await house.publications.erase(await house.publications.find(ME, "b"))
        assert await house.refused(house.publications.find(ME, "a")) == "stream_not_found"
        await house.create("a", b"anew")


async def test_it_goes_by_disuse_or_at_its_time(make):
    async with House(make, retention=1000) as house:
        await house.create("idle", wanted=Wanted("text/plain", ttl=10))
        await house.create("read", wanted=Wanted("text/plain", ttl=10))
        await house.create("due", wanted=Wanted("text/plain", expires_at=house.wall.now + 15))
        await house.create("closed", wanted=Wanted("text/plain", closed=True))
        left = (await house.publications.find(ME, "read")).attach()
        house.wall.now += 9
        await house.append("due", b"x")
        house.wall.now += 9
        for path in ("idle", "due"):
            assert await house.refused(house.publications.find(ME, path)) == "stream_not_found"
        await house.publications.find(ME, "read")
        left()
        house.wall.now += 1000
        assert await house.refused(house.publications.find(ME, "closed")) == "stream_not_found"
        await house.create("idle", b"anew")


async def test_the_sweep_erases_what_nobody_asks_for(make):
    async with House(make) as house:
        publication = await house.create("idle", wanted=Wanted("text/plain", ttl=10))
        house.wall.now += 11
        await house.publications.sweep()
        assert await house.store.catalogue.find(publication.id) is None
        assert house.publications.list(ME, "", "", 9) == []


async def test_there_are_bounds(make):
    bounds = {"max_stream_bytes": 10, "max_bytes": 15, "max_streams": 3, "max_streams_per_owner": 2}
    async with House(make, **bounds) as house:
        await house.create("a", b"x" * 10)
        assert await house.refused(house.append("a", b"y")) == "stream_full"
        await house.create("b", b"x" * 5)
        assert await house.refused(house.append("b", b"y")) == "stream_full"
        assert await house.refused(house.create("c")) == "too_many_streams"
        other = Principal("other")
        await house.create("c", principal=other)
        assert await house.refused(house.create("d", principal=other)) == "too_many_streams"
        await house.publications.erase(await house.publications.find(ME, "a"))
        await house.create("d", b"room again")


async def test_much_at_once_is_cut_and_whole(make):
    async with House(make) as house:
        await house.create("a")
        pieces = [bytes([n]) * MAX_PARCEL for n in range(40)]
        await house.append("a", *pieces)
        assert await house.content("a") == b"".join(pieces)


async def test_a_store_that_gives_up_takes_nothing_back_that_was_answered(make):
    async with House(make) as house:
        publication = await house.create("a", b"kept")
        stream = publication.open
        stream.on_failure(StoreFailure("disk full", final=False))
        assert not stream.lost
        stream.write([Piece(b"lost")])
        stream.on_failure(StoreFailure("disk full", final=True))
        with pytest.raises(StorageError):
            await house.publications._stored(publication)
        assert await house.content("a") == b"kept"


async def test_who_leaves_lets_readers_go_and_takes_no_more(make):
    async with House(make) as house:
        publication = await house.create("a", b"x")
        reading = asyncio.create_task(publication.open.wait_beyond(1))
        await asyncio.sleep(0)
        house.publications.leave()
        await reading
        with pytest.raises(GatewayError) as leaving:
            await house.append("a", b"y")
        assert leaving.value.code == "draining"


@pytest.mark.parametrize("path", ["", "/", "a//b", "a/../b", ".", "__ds/x", "a\x00", "x" * 513, "a/"])
def test_paths_that_cannot_be_are_refused(path):
    with pytest.raises(ClientError):
        check_path(path)


@pytest.mark.parametrize("path", ["a", "logs/app", "größe/日本", "a b", "...", "a/__b"])
def test_paths_that_can_be(path):
    assert check_path(path) == path


# --- keeping the newest bytes --------------------------------------------------------------------------


async def filled(house, path, count, size=10_000, **more):
    """Append so many numbered pieces, by a producer."""
    for number in range(count):
        piece = b"%06d " % number + bytes(size - 7)
        await house.append(path, piece, producer=Producer("writer", 0, number), **more)


async def kept(house, path):
    """Return the number of the first piece there is, and the bytes from it on."""
    publication = await house.publications.find(ME, path)
    stream = publication.open
    entries = await stream.read(await entries_gone(stream), 1)
    parcel = decode_parcel(entries[0].line)
    return int(parcel.content[:6]), stream.tail.bytes - (parcel.end - len(parcel.content))


async def sealed(house):
    if isinstance(house.store, EmbeddedStore):
        await eventually(lambda: house.store.statistics().unsealed_bytes < 70_000)


async def test_an_endless_stream_keeps_its_newest_bytes(make):
    keep = 200_000
    async with House(make) as house:
        publication = await house.create("log", wanted=Wanted("text/plain", keep=keep))
        for number in range(400):
            piece = b"%06d " % number + bytes(9_993)
            await house.append("log", piece, producer=Producer("writer", 0, number))
            if number % 50 == 49:
                await sealed(house)
                await house.publications.sweep()
        first, held = await kept(house, "log")
        assert 340 <= first <= 380
        assert keep <= held <= keep + 2 * SLACK
        assert publication.size == held
        assert publication.open.tail == Mark(400, 4_000_000)
        assert (await house.store.catalogue.find(publication.id)).bytes < 1.2 * held


async def test_what_is_gone_is_said_to_who_asks_for_it(make):
    async with House(make) as house:
        publication = await house.create("log", wanted=Wanted("text/plain", keep=100_000))
        await filled(house, "log", 100)
        await sealed(house)
        await house.publications.sweep()
        first, _ = await kept(house, "log")
        assert first > 0
        for after in (0, first - 1):
            with pytest.raises(Trimmed) as gone:
                await publication.open.read(after)
            assert gone.value.earliest == first + 1
        assert (await publication.open.read(first))[0].seq == first + 1


async def test_of_a_trimmed_stream_writers_are_known_after_a_restart(on_disk):
    async with House(on_disk) as house:
        await house.create("log", wanted=Wanted("text/plain", keep=1))
        await filled(house, "log", 3 * COMPLETE_EVERY)
        await sealed(house)
        await house.publications.sweep()
        await house.restart()
        last = 3 * COMPLETE_EVERY - 1
        again = await house.append("log", b"x", producer=Producer("writer", 0, last))
        assert again.duplicate
        assert (
            await house.append("log", b"x", producer=Producer("writer", 0, last + 1))
        ).mark.entries == last + 2
        publication = await house.publications.find(ME, "log")
        assert publication.config.wanted.keep == 1


async def test_the_bound_of_a_stream_is_that_of_what_it_keeps(make):
    async with House(make, max_stream_bytes=1_000_000) as house:
        await house.create("log", wanted=Wanted("text/plain", keep=100_000))
        for _ in range(5):
            await house.append("log", *(bytes(100_000) for _ in range(5)))
            await sealed(house)
            await house.publications.sweep()
        assert (await house.publications.find(ME, "log")).open.tail.bytes == 2_500_000


async def test_what_others_begin_with_is_not_trimmed_and_forks_keep_all(make):
    async with House(make) as house:
        await house.create("log", wanted=Wanted("text/plain", keep=1))
        await filled(house, "log", 100)
        await house.create("fork", wanted=Wanted("", fork=Fork("log")))
        await sealed(house)
        await house.publications.sweep()
        assert (await kept(house, "log"))[0] == 0
        refused = house.publications.create(ME, "other", Wanted("", fork=Fork("log"), keep=1), ())
        assert await house.refused(refused) == "invalid_fork"
        await house.publications.erase(await house.publications.find(ME, "fork"))
        await house.publications.sweep()
        assert (await kept(house, "log"))[0] > 0


# --- forks, while what they are made of changes --------------------------------------------------------


class Gate:
    """One method of the store, held until it is let go."""

    def __init__(self, of, name):
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self._of, self._name = of, name

    def __enter__(self):
        does = getattr(self._of, self._name)

        async def held(*given):
            self.reached.set()
            await self.go.wait()
            return await does(*given)

        setattr(self._of, self._name, held)
        return self

    def __exit__(self, *_):
        self.go.set()
        delattr(self._of, self._name)


async def endless(house):
    """A log of a hundred pieces that may have one of them."""
    log = await house.create("log", wanted=Wanted("text/plain", keep=1))
    await filled(house, "log", 100)
    await sealed(house)
    return log


def forked(*place):
    return Wanted("", fork=Fork("log", *place))


async def test_a_fork_that_is_being_made_keeps_its_beginning_from_being_trimmed(make):
    async with House(make) as house:
        await endless(house)
        with Gate(house.store.journal, "create") as making:
            async with asyncio.TaskGroup() as group:
                fork = group.create_task(house.create("fork", b"!", wanted=forked(Mark(3, 30_000))))
                await making.reached.wait()
                await house.publications.sweep()
                making.go.set()
        assert len(await house.content("fork")) == 30_001
        await house.publications.erase(fork.result())
        await house.publications.sweep()
        assert (await kept(house, "log"))[0] > 0


@pytest.mark.parametrize("step", ["read", "trim"])
async def test_a_fork_made_while_its_source_is_trimmed_is_whole_or_refused(make, step):
    async with House(make) as house:
        await endless(house)
        async with asyncio.TaskGroup() as group:
            with Gate(house.store.journal, step) as trimming:
                group.create_task(house.publications.sweep())
                await trimming.reached.wait()
                making = house.create("fork", b"!", wanted=forked(Mark(3, 30_000)))
                fork = group.create_task(outcome(making))
                for _ in range(20):  # as far as it can come
                    await asyncio.sleep(0)
        if step == "read":  # nothing was gone yet when the fork came
            assert not isinstance(fork.result(), ClientError)
            assert len(await house.content("fork")) == 30_001
        else:
            assert fork.result().code == "invalid_fork"
            assert await house.refused(house.publications.find(ME, "fork")) == "stream_not_found"


async def outcome(doing):
    try:
        return await doing
    except ClientError as error:
        return error


async def test_a_fork_that_is_being_made_keeps_what_it_begins_with_from_being_erased(make):
    async with House(make) as house:
        await house.create("log", b"old ")
        with Gate(house.store.journal, "create") as making:
            async with asyncio.TaskGroup() as group:
                group.create_task(house.create("fork", b"new", wanted=forked()))
                await making.reached.wait()
                await house.publications.erase(await house.publications.find(ME, "log"))
                making.go.set()
        assert await house.content("fork") == b"old new"
        await house.publications.erase(await house.publications.find(ME, "fork"))
        assert await house.refused(house.publications.find(ME, "log")) == "stream_not_found"


async def test_what_a_fork_that_came_to_nothing_was_to_begin_with_goes(make):
    async with House(make, max_stream_bytes=9) as house:
        await house.create("log", b"old ")
        with Gate(house.store.journal, "create") as making:
            async with asyncio.TaskGroup() as group:
                fork = group.create_task(house.create("fork", b"new", wanted=forked()))
                await making.reached.wait()
                await house.publications.erase(await house.publications.find(ME, "log"))
                fork.cancel()
        await house.publications.sweep()
        await house.create("log", b"anew")


async def test_a_fork_begins_where_its_source_has_something(make):
    async with House(make) as house:
        log = await endless(house)
        await house.publications.sweep()
        first, _ = await kept(house, "log")
        for entries in (1, first):
            place = Mark(entries, entries * 10_000)
            assert await house.refused(house.create("fork", wanted=forked(place))) == "invalid_fork"
        wrong = Mark(first + 1, first * 10_000)
        assert await house.refused(house.create("fork", wanted=forked(wrong))) == "invalid_fork"
        assert log.forks == 0
        fork = await house.create("fork", b"!", wanted=forked(Mark(first + 1, (first + 1) * 10_000)))
        of_it = Wanted("", fork=Fork("fork", Mark(first, first * 10_000)))
        assert await house.refused(house.create("third", wanted=of_it)) == "invalid_fork"
        with pytest.raises(Trimmed) as gone:
            await fork.open.read(0)
        assert [entry.seq for entry in await fork.open.read(gone.value.earliest - 1)] == [first + 1]
        assert len(await fork.open.read(first + 1)) == 1
        empty = await house.create("empty", wanted=forked(Mark(0, 0)))
        assert empty.open.tail == Mark(0, 0)
