"""What a reload replaces: for new calls at once, for those under way not at all; and nothing is leaked."""

import asyncio

import msgspec
import pytest

from penstock.gateway.router import Routing
from penstock.gateway.setup import Setups
from penstock.providers.provider import Target
from penstock.telemetry.metrics import Metrics
from penstock.types.errors import GatewayError
from penstock.types.signals import NamesChanged
from tests.gateway.hand import HandProvider, HandStore, House, call, texts, turns
from tests.virtual_time import run_virtually


class Provider(HandProvider):
    """One that tells whether it was closed."""

    def __init__(self, name):
        super().__init__(name)
        self.closed = 0

    async def aclose(self):
        self.closed += 1


class Companion:
    def __init__(self, *, fails=False):
        self.state = "new"
        self.fails = fails

    async def open(self):
        if self.fails:
            raise GatewayError("It does not open.", code="internal_error")
        self.state = "open"

    async def aclose(self):
        self.state = "closed"


def played(scene, **parts):
    async def main():
        async with House(HandStore(), **parts) as house:
            house.a = Provider("a")
            first = changed(house, a=house.a)
            house.setups.use(first)
            await asyncio.wait_for(scene(house), 1_000_000)

    run_virtually(main())


def changed(house, companions=(), **providers):
    """Return a setup in which the model ``m`` goes to the first of ``providers``."""
    first = next(iter(providers))
    routing = Routing({"m": (Target(f"{first}/m", first, "m"),)})
    return msgspec.structs.replace(house.setup, providers=providers, routing=routing, companions=companions)


def test_a_run_keeps_its_provider_which_is_closed_when_the_last_run_ended():
    async def scene(house):
        stream, source = await house.begin()
        second, other = await house.begin()
        new = Provider("c")
        house.use(changed(house, c=new), house.settings)
        assert house.setups.living == 2
        await house.start(call())
        await turns()
        assert len(new.sources) == 1
        for one in (source, other):
            await turns()
            assert house.a.closed == 0
            one.say("whole")
            one.finish()
        await stream.wait_closed()
        await second.wait_closed()
        await turns()
        assert (house.a.closed, new.closed, house.setups.living) == (1, 0, 1)
        assert texts(house.store, stream) == ["whole"]

    played(scene)


def test_what_did_not_change_is_shared_and_not_closed():
    async def scene(house):
        kept = Companion()
        both = changed(house, a=house.a, companions=(kept,))
        await house.setups.open(both)
        house.use(both, house.settings)
        for _ in range(3):
            again = changed(house, a=house.a, b=house.b, companions=(kept,))
            await house.setups.open(again)
            house.use(again, house.settings)
            await turns()
        assert (house.a.closed, kept.state, house.setups.living) == (0, "open", 1)
        house.use(changed(house, b=house.b), house.settings)
        await turns()
        assert (house.a.closed, kept.state) == (1, "closed")

    played(scene)


def test_where_something_new_does_not_open_all_stays_as_it_was():
    async def scene(house):
        good = Companion()
        with pytest.raises(GatewayError):
            await house.setups.open(changed(house, b=house.b, companions=(good, Companion(fails=True))))
        assert good.state == "closed"
        assert house.setups.living == 1
        await house.begin()

    played(scene)


def test_what_a_replaced_provider_lists_is_forgotten_even_if_it_says_so_later():
    async def scene(house):
        answer = asyncio.get_running_loop().create_future()

        async def late():
            return await answer

        house.a.listing = late
        asked = asyncio.ensure_future(house._listings.at_hand(["a"]))
        await turns()
        house.use(changed(house, b=house.b), house.settings)
        answer.set_result(["x"])
        await asked
        assert "a" not in house._listings.known
        await house._listings.fresh(["a"])  # somebody still means it: nobody is asked, nothing breaks

    played(scene)


def test_everything_is_closed_when_the_gateway_leaves():
    providers = []

    async def main():
        async with House(HandStore()) as house:
            for name in "xyz":
                providers.append(Provider(name))
                house.use(changed(house, **{name: providers[-1]}), house.settings)
                await house.start(call(name))
                await turns()

    run_virtually(main())
    assert [one.closed for one in providers] == [1, 1, 1]


def test_who_holds_a_setup_is_counted():
    async def main():
        spawned = []
        async with House(HandStore()) as house:
            setups = Setups(house.setup, spawned.append)
            with setups.hold(), setups.hold() as tenure:
                setups.use(changed(house, b=house.b))
                assert (tenure.holders, setups.living) == (2, 2)
            assert (tenure.holders, setups.living) == (0, 1)
            for closing in spawned:
                await closing

    run_virtually(main())


def test_names_that_a_reload_took_away_are_kept_while_a_run_has_them_and_no_longer():
    told = []

    def names():
        return [sorted(one.targets) for one in told if type(one) is NamesChanged]

    async def scene(house):
        told.clear()
        stream, source = await house.begin()
        house.use(changed(house, c=Provider("c")), house.settings)
        assert names() == [["a/m", "c/m"]]
        assert list(house.health.statistics()) == []
        source.say("wh", "ole")
        await turns()
        assert list(house.gaps) == ["a/m"]
        source.finish()
        await stream.wait_closed()
        await turns()
        assert names() == [["a/m", "c/m"], ["c/m"]]
        assert (house.gaps, house.health._targets) == ({}, {})

    played(scene, observe=told.append)


def test_a_breaker_of_a_target_that_is_no_more_is_open_no_more():
    async def scene(house):
        for _ in range(5):
            trial = house.health.of("a/m").begin()
            trial.fail()
            trial.end()
        assert house.health.statistics()["a/m"].state == "open"
        house.use(changed(house, a=house.a), house.settings)
        assert house.health.statistics()["a/m"].state == "open"
        house.use(changed(house, b=house.b), house.settings)
        assert house.health.statistics() == {}
        house.use(changed(house, a=house.a), house.settings)
        assert house.health.of("a/m").state == "closed"

    played(scene)


def test_after_a_thousand_reloads_with_other_names_each_there_are_those_of_the_last():
    metrics = Metrics(lambda name: name)

    async def scene(house):
        for number in range(1_000):
            name = f"name-{number}"
            target = Target(name, "a", "m")
            house.use(
                msgspec.structs.replace(house.setup, routing=Routing({name: (target,)})), house.settings
            )
            asked = call()
            request = msgspec.structs.replace(asked.request, model=name)
            stream = (await house.start(msgspec.structs.replace(asked, request=request))).stream
            await turns()
            source = house.a.sources.pop()
            source.say("wh", "ole")
            source.finish()
            await stream.wait_closed()
            await turns()
        assert [*house.gaps] == [*house.health.statistics()] == ["name-999"]
        labels = {
            value
            for family in metrics.families()
            for sample in family.samples
            for label, value in sample.labels.items()
            if label in ("model", "target")
        }
        assert labels == {"name-999"}

    played(scene, observe=metrics)
