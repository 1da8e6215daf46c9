"""What providers list: asked for seldom, in the background, and never where a name is known."""

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from penstock.gateway.router import Pattern
from penstock.providers.provider import Model, Target
from penstock.types.errors import ClientError, UpstreamError
from penstock.types.requests import GenerationRequest, Message
from tests.gateway.hand import HandStore, House, call, turns
from tests.virtual_time import run_virtually


def played(scene):
    """Play ``scene`` with a house of its own, in virtual time."""

    async def main():
        async with House(HandStore()) as house:
            await asyncio.wait_for(scene(house), 1_000_000)

    run_virtually(main())


def wild(house, **changes):
    """Let every name go to ``a``, or change the routing so."""
    star = Pattern("*", (Target("a", "a", "*"),))
    routing = msgspec.structs.replace(house.setup.routing, **(changes or {"patterns": (star,)}))
    house.setups.current.setup = msgspec.structs.replace(house.setup, routing=routing)


async def names(house):
    return [model.id for model in await house.models()]


@pytest.mark.parametrize(
    ("trouble", "left"),
    [("hangs", ["m", "x"]), ("upstream_error", ["m", "x"]), ("upstream_unreachable", ["m"])],
)
def test_a_list_that_does_not_come_is_the_last_one_and_none_where_nobody_is_reached(trouble, left):
    asked = []

    async def fails():
        asked.append(1)
        if trouble == "hangs":
            await asyncio.Event().wait()
        raise UpstreamError("down", code=trouble)

    async def scene(house):
        wild(house)
        house.a.listing = lambda: ["x", "m"]
        assert await names(house) == ["m", "x"]
        await asyncio.sleep(31)
        house.a.listing = fails
        await names(house)
        await asyncio.sleep(4)
        for _ in range(3):
            assert await names(house) == left
        assert len(asked) == 1, "it is not asked each time"
        await asyncio.sleep(31)
        await names(house)
        await asyncio.sleep(4)
        assert await names(house) == ["m"], "it did not come twice"

    with capture_logs() as logs:
        played(scene)
    assert [line["event"] for line in logs].count("models_unavailable") == 1


def test_an_old_list_is_served_at_once_and_renewed_behind_it():
    gate = asyncio.Event()

    async def slow():
        await gate.wait()
        return ["new"]

    async def scene(house):
        wild(house)
        house.a.listing = lambda: ["old"]
        await house.models()
        await asyncio.sleep(31)
        house.a.listing = slow
        began = asyncio.get_running_loop().time()
        assert await names(house) == ["m", "old"]
        assert asyncio.get_running_loop().time() - began < 1
        gate.set()
        await turns()
        assert await names(house) == ["m", "new"]

    played(scene)


def test_providers_are_asked_side_by_side_and_once_however_many_want_to_know():
    asked = []

    async def slow():
        asked.append(1)
        await asyncio.sleep(2)
        return ["x"]

    async def scene(house):
        house.a.listing = house.b.listing = slow
        to_b = Pattern("b/*", (Target("b", "b", "*"),), strip="b/")
        wild(house, patterns=(to_b,), rest=Pattern("*", (Target("a", "a", "*"),)))
        began = asyncio.get_running_loop().time()
        first, second = await asyncio.gather(names(house), names(house))
        assert first == second == ["m", "x", "b/x"]
        assert asyncio.get_running_loop().time() - began < 3
        assert len(asked) == 2

    played(scene)


def test_a_question_goes_on_when_who_asked_leaves():
    async def slow():
        await asyncio.sleep(2)
        return ["x"]

    async def scene(house):
        wild(house)
        house.a.listing = slow
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await house.models()
        await asyncio.sleep(1.5)
        house.a.listing = None  # would raise
        assert await names(house) == ["m", "x"]

    played(scene)


def test_a_bug_in_a_providers_list_ends_no_run():
    def crash():
        raise KeyError("bug")

    async def scene(house):
        wild(house)
        stream, source = await house.begin()
        house.a.listing = crash
        assert await names(house) == ["m"]
        source.say("on")
        source.finish()
        await stream.wait_closed()
        assert stream.state == "completed"

    with capture_logs() as logs:
        played(scene)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["models_crashed"]


def test_a_name_of_the_configuration_is_not_asked_about():
    async def scene(house):
        house.a.listing = None
        wild(house, listed=("a",))
        assert (await house.start(call())).stream.info.model == "m"

    played(scene)


def asking_for(model):
    return msgspec.structs.replace(
        call(), request=GenerationRequest(model, (Message("user", "hello"),)), body_sha256=model
    )


def test_a_name_that_a_provider_begins_to_list_can_be_asked_for_and_no_more_once_it_is_gone():
    async def unreachable():
        raise UpstreamError("gone", code="upstream_unreachable")

    async def scene(house):
        house.a.listing = unreachable
        wild(house, listed=("a",), found=frozenset("a"))
        with pytest.raises(ClientError, match="not known"):
            await house.start(asking_for("llama"))
        house.a.listing = lambda: [Model("llama:latest", ("llama",))]
        await asyncio.sleep(1)
        for name in ("llama", "llama:latest", "a/llama"):
            stream = (await house.start(asking_for(name))).stream
            await turns()
            assert stream.info.model == name
        await asyncio.sleep(31)
        house.a.listing = unreachable
        with pytest.raises(ClientError) as caught:
            await house.start(asking_for("llama"))
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")

    with capture_logs():
        played(scene)


def test_unknown_names_do_not_make_for_a_question_each():
    asked = []

    def listing():
        asked.append(1)
        return ["llama"]

    async def scene(house):
        house.a.listing = listing
        wild(house, listed=("a",))
        for number in range(20):
            with pytest.raises(ClientError):
                await house.start(asking_for(f"nobody{number}"))
        assert len(asked) == 1

    played(scene)


def test_the_route_of_the_rest_does_not_wait_for_who_was_never_heard():
    async def hangs():
        await asyncio.Event().wait()

    async def scene(house):
        house.a.listing = hangs
        wild(house, listed=("a",), rest=Pattern("*", (Target("b", "b", "*"),)))
        began = asyncio.get_running_loop().time()
        await house.start(asking_for("gpt"))
        assert asyncio.get_running_loop().time() - began < 1

    played(scene)


def test_the_route_of_the_rest_does_not_wait_for_who_lists_slowly():
    async def slow():
        await asyncio.sleep(2)
        return ["llama"]

    async def scene(house):
        house.a.listing = lambda: ["llama"]
        wild(house, listed=("a",), rest=Pattern("*", (Target("b", "b", "*"),)))
        await house.start(asking_for("gpt"))
        await asyncio.sleep(31)
        house.a.listing = slow
        began = asyncio.get_running_loop().time()
        await house.start(asking_for("gpt"))
        assert asyncio.get_running_loop().time() - began < 1
        await turns()
        assert len(house.b.sources) == 2

    played(scene)


def test_a_gateway_that_leaves_drops_its_questions():
    async def hangs():
        await asyncio.Event().wait()

    async def scene(house):
        wild(house)
        house.a.listing = hangs
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await house.models()

    played(scene)
