"""ERNIE v1 as a provider, over a socket that cuts anywhere: its tokens, its errors in a 200, its answers."""

import json
from urllib.parse import unquote

import msgspec
import pytest

from penstock.assembly.providers import build_provider
from penstock.config import Config, ProviderConfig, check
from penstock.gateway.gateway import Gateway
from penstock.gateway.router import Routing
from penstock.providers.provider import Target
from penstock.streams.memory import MemoryStore
from penstock.types.calls import Call
from penstock.types.errors import ClientError
from penstock.types.principals import Principal
from penstock.types.requests import GenerationRequest, Message
from tests.clients.vector_server import Refused, Reply, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

KEY, SECRET = "an-api-key-0123456789", "a-secret-key-0123456789"
CHAT = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/"


def judge(server, asked):
    state = server.state
    if asked.path == "/oauth/2.0/token":
        assert (asked.method, asked.query["grant_type"]) == ("POST", "client_credentials")
        if (asked.query["client_id"], asked.query["client_secret"]) != (KEY, SECRET):
            told = f"unknown client id: {asked.query['client_id']}"
            raise Refused(401, {"error": "invalid_client", "error_description": told})
        state["sold"] = state.get("sold", 0) + 1
        return Reply(
            json.dumps({"access_token": f"24.token-{state['sold']}", "expires_in": 2592000}).encode()
        )
    assert asked.path.startswith(CHAT)
    assert asked.body["stream"] is True
    token = asked.query["access_token"]
    if token in state.setdefault("ended", set()) or state.get("closed"):
        return Reply(json.dumps({"error_code": 110, "error_msg": f"Access token invalid: {token}"}).encode())
    return answer("ernie", unquote(asked.path.removeprefix(CHAT)))


@pytest.fixture
def server():
    with running(judge) as made:
        yield made


@pytest.fixture
def make(server):
    def made(secret=SECRET, **settings):
        config = ProviderConfig(base_url=server.url, api_key=KEY, secret_key=secret, **settings)
        return build_provider("box", "ernie", config, {})

    return made


def asking(**fields):
    return GenerationRequest("m", (Message("user", "Hi"),), **fields)


async def test_all_forms_of_answer_are_understood_with_one_token(make, server):
    provider = make()
    for vector in load("ernie"):
        recorder = Recorder(provider.converse(asking(), vector.name))
        error = await recorder.play()
        assert recorder.events == expected(vector), vector.name
        assert (error is None) == ("error" not in vector.content), vector.name
    error = await Recorder(provider.converse(asking(), "cut:text")).play()
    assert error.code in ("upstream_reset", "upstream_truncated")
    assert server.state["sold"] == 1
    await provider.aclose()


async def test_models_are_asked_at_their_endpoints(make, server):
    provider = make()
    for model, endpoint in (("ERNIE-4.0-8K", "completions_pro"), ("ERNIE-Speed-128K", "ernie-speed-128k")):
        await Recorder(provider.converse(asking(), model)).play()
        assert server.last.path == f"{CHAT}{endpoint}"
    assert await provider.models() == ()
    await provider.aclose()


async def test_a_token_that_has_ended_is_replaced_unseen(make, server):
    """The whole way: behind a gateway, whose readers see an answer and no error."""
    provider = make()
    routing = Routing({"m": (Target("box/text", "box", "text"),)})
    ends = []
    async with Gateway(MemoryStore(), {"box": provider}, routing) as gateway:

        async def ask():
            call = Call(Principal("me"), "r", msgspec.structs.replace(asking(), stream=True))
            stream = (await gateway.start(call)).stream
            await stream.wait_closed()
            ends.append((await stream.read(0))[-1].event)

        await ask()
        server.state["ended"].add("24.token-1")
        await ask()
        await ask()
        assert gateway.health.of("box/text").state == "closed"
        server.state["closed"] = True  # now it takes none, however new
        await ask()
    assert [(end.status, end.attempts) for end in ends] == [
        ("completed", 1),
        ("completed", 2),
        ("completed", 1),
        ("failed", 2),
    ]
    assert (ends[-1].code, "token" in ends[-1].message.replace("Access token", "")) == (
        "invalid_api_key",
        False,
    )
    assert server.state["sold"] == 3


async def test_a_wrong_secret_is_told_without_what_it_was(make):
    wrong = make("not-the-secret-0123")
    with pytest.raises(Exception, match="unknown client id") as caught:
        await wrong.converse(asking(), "text").source.open(Recorder(wrong.converse(asking(), "text")))
    assert (caught.value.code, KEY in caught.value.message) == ("invalid_api_key", False)
    await wrong.aclose()


async def test_who_leaves_while_a_token_is_fetched_asks_nothing(make, server):
    provider = make()
    conversation = provider.converse(asking(), "text")
    recorder = Recorder(conversation)
    completing = conversation.source.complete

    async def complete(request):
        made = await completing(request)
        conversation.source.abort()
        return made

    conversation.source.complete = complete
    await conversation.source.open(recorder)
    assert server.last.path == "/oauth/2.0/token"
    assert not recorder.ended
    await provider.aclose()


async def test_what_it_has_no_place_for_is_left_out_or_refused(make):
    lax, strict = make(), make(unsupported="refuse")
    asked = asking(logprobs=True, user="u")
    assert lax.converse(asked, "text").dropped == ("logprobs",)
    with pytest.raises(ClientError, match="logprobs"):
        strict.converse(asked, "text")
    with pytest.raises(ClientError, match="'n'"):
        lax.converse(asking(n=2), "text")
    await lax.aclose()
    await strict.aclose()


@pytest.mark.parametrize(
    ("made", "where"),
    [
        ({"ernie": ProviderConfig(api_key=KEY)}, "providers.ernie"),
        ({"ernie": ProviderConfig(secret_key=SECRET)}, "providers.ernie"),
        (
            {"ernie": ProviderConfig(api_key=KEY, secret_key=SECRET, api_keys=("x",))},
            "providers.ernie.api_keys",
        ),
        ({"mistral": ProviderConfig(api_key=KEY, secret_key=SECRET)}, "providers.mistral.secret_key"),
    ],
)
def test_a_key_without_a_secret_is_a_mistake(made, where):
    assert [problem.where for problem in check(Config(providers=made))] == [where]
