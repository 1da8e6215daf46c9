"""Vertex AI and Azure by Entra: tokens that the makers' own libraries fetch from servers that check what they
are shown, and requests that carry them. The makers' SDKs judge the server that is asked."""

import asyncio
import json
import time

import anthropic
import jwt
import pytest
from anthropic import AnthropicVertex
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google import genai
from google.oauth2.credentials import Credentials

from penstock.assembly.providers import build_provider
from penstock.config import Config, ProviderConfig, check, with_environment
from penstock.providers.tokens import Tokens, TokenSigner
from penstock.types.errors import UpstreamError
from penstock.types.requests import GenerationRequest, Message
from tests.clients.vector_server import Refused, Reply, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
ISSUER = "https://oauth2.googleapis.com/token"  # whom its tokens are for, wherever they are issued
EXPRESS = "an-express-key-0123456789"
PLACE = "/v1/projects/box/locations/europe-west4/publishers"


def token_of(server) -> str:
    """Return the one token that the server takes now."""
    return f"geheim-token-{server.issued}"


def judge(server, asked):
    """Issue tokens for what proves who asks, and let in by them alone."""
    match asked.path:
        case "/google/token":
            told = jwt.decode(asked.form["assertion"], KEY.public_key(), ["RS256"], audience=ISSUER)
            assert (told["iss"], told["scope"]) == (
                "me@box",
                "https://www.googleapis.com/auth/cloud-platform",
            )
            server.issued += 1
            return Reply(json.dumps({"access_token": token_of(server), "expires_in": 3600}).encode())
        case "/msi/token":
            assert asked.headers["x-identity-header"] == "of-this-machine"
            assert asked.query["resource"] == "https://cognitiveservices.azure.com"
            server.issued += 1
            ends = {"access_token": token_of(server), "expires_on": str(int(time.time()) + 3600)}
            return Reply(json.dumps({**ends, "token_type": "Bearer", "resource": "x"}).encode())
    bearer = asked.headers.get("authorization", "")
    if bearer != f"Bearer {token_of(server)}" and asked.headers.get("x-goog-api-key") != EXPRESS:
        raise Refused(401, {"error": {"code": 401, "message": f"not {bearer}", "status": "UNAUTHENTICATED"}})
    if asked.path.startswith("/openai/"):
        return answer("openai_chat", "text")
    name, _, method = asked.path.rpartition("/")[2].partition(":")
    if method == "countTokens":
        return Reply(json.dumps({"totalTokens": 7}).encode())
    if name == "count-tokens":
        assert asked.body["model"] == "claude-x"
        return Reply(json.dumps({"input_tokens": 8}).encode())
    if method == "streamRawPredict":
        assert asked.body.pop("anthropic_version") in ("vertex-2023-10-16", "2026-10-21")  # ours, its SDK's
        assert "model" not in asked.body
        return answer("anthropic_messages", name.removeprefix("claude-"))
    assert (method, asked.query) == ("streamGenerateContent", {"alt": "sse"})
    return answer("gemini", name)


@pytest.fixture(scope="module")
def server():
    with running(judge) as made:
        made.issued = 0
        yield made


@pytest.fixture
def file(server, tmp_path):
    """A service account's file, whose tokens the server issues."""
    path = tmp_path / "account.json"
    said = {"type": "service_account", "client_email": "me@box", "private_key": PEM, "project_id": "box"}
    path.write_text(json.dumps({**said, "token_uri": f"{server.url}/google/token", "private_key_id": "1"}))
    return str(path)


@pytest.fixture
def make(server, file):
    def made(**settings):
        given = {"project": "box", "region": "europe-west4", "credentials_file": file, **settings}
        return build_provider("box", "vertex", ProviderConfig(base_url=server.url, **given), {})

    return made


def asking(**fields):
    return GenerationRequest("m", (Message("user", "Hi"),), **fields)


async def test_all_forms_of_answer_of_both_makers_are_understood(make, server):
    provider = make()
    before = server.issued
    for dialect, prefix in (("gemini", ""), ("anthropic_messages", "claude-")):
        for vector in load(dialect):
            if vector.content.get("status", 200) != 200 or "json" in vector.name:
                continue
            recorder = Recorder(provider.converse(asking(), prefix + vector.name))
            error = await recorder.play()
            assert recorder.events == expected(vector), vector.name
            assert (error is None) == ("error" not in vector.content), vector.name
    assert server.issued == before + 1  # one token for them all
    await provider.aclose()


async def test_a_model_is_asked_under_its_maker_its_project_and_its_region(make, server):
    provider = make()
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    assert server.last.path == f"{PLACE}/google/models/text:streamGenerateContent"
    assert await Recorder(provider.converse(asking(), "claude-text")).play() is None
    assert server.last.path == f"{PLACE}/anthropic/models/claude-text:streamRawPredict"
    assert server.last.body["stream"] is True
    assert await provider.count_tokens(asking(), "text") == 7
    assert set(server.last.body) == {"contents"}
    assert await provider.count_tokens(asking(), "claude-x") == 8
    assert await provider.models() == ()
    await provider.aclose()


async def test_a_key_of_express_mode_needs_no_project_and_no_token(make, server):
    provider = make(api_key=EXPRESS, project="")
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    assert server.last.path == "/v1/publishers/google/models/text:streamGenerateContent"
    assert "authorization" not in server.last.headers
    await provider.aclose()


async def test_a_token_that_is_taken_back_is_replaced_and_quoted_nowhere(make, server):
    provider = make()
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    old = token_of(server)
    server.issued += 1  # it takes the old one no more
    conversation = provider.converse(asking(), "text")
    error = await Recorder(conversation).play()
    assert (error.upstream_status, error.code) == (401, "invalid_api_key")
    assert old not in conversation.conceal(error.message)
    assert conversation.key.failed(error) is True  # the gateway asks again
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    server.issued += 1
    assert await provider.count_tokens(asking(), "text") == 7  # what has no stream asks again by itself
    await provider.aclose()


async def test_without_credentials_it_says_where_they_are_looked_for(make, monkeypatch, tmp_path):
    (tmp_path / "wrong.json").write_text('{"type": "service_account"}')
    provider = make(credentials_file=str(tmp_path / "wrong.json"))
    with pytest.raises(UpstreamError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        await Recorder(provider.converse(asking(), "text")).play()
    assert (caught.value.code, caught.value.retryable) == ("invalid_api_key", False)
    await provider.aclose()


async def test_azure_takes_tokens_of_entra(server, monkeypatch):
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "of-this-machine")
    said = ProviderConfig(base_url=server.url, entra=True)
    provider = await asyncio.to_thread(build_provider, "box", "azure", said, {})  # it loads what it needs
    before = server.issued
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    assert server.last.headers["authorization"] == f"Bearer {token_of(server)}"
    assert "api-key" not in server.last.headers
    assert server.issued == before + 1
    await provider.aclose()


@pytest.mark.parametrize(
    ("name", "strange"), [("AZURE_TENANT_ID", "my tenant!"), ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1")]
)
async def test_entra_s_settings_that_cannot_be_are_told_as_such(monkeypatch, name, strange):
    given = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "geheim-secret"}
    for variable, value in {**given, name: strange}.items():
        monkeypatch.setenv(variable, value)
    said = ProviderConfig(base_url="http://127.0.0.1:1", entra=True)
    provider = await asyncio.to_thread(build_provider, "box", "azure", said, {})
    with pytest.raises(UpstreamError, match="AZURE_TENANT_ID") as caught:
        await Recorder(provider.converse(asking(), "text")).play()
    assert (caught.value.code, caught.value.retryable) == ("invalid_api_key", False)
    assert "geheim" not in caught.value.message
    await provider.aclose()


async def test_who_waits_for_a_token_gets_the_one_that_is_fetched():
    fetched = []

    async def fetch():
        fetched.append(1)
        await asyncio.sleep(0)
        return "t", 3600.0

    signer = TokenSigner(Tokens(fetch, lambda: 0.0), lambda: 0.0)
    tokens = await asyncio.gather(*(signer._tokens.get() for _ in range(20)))
    assert {token.value for token in tokens} == {"t"}
    assert fetched == [1]


def test_what_is_missing_or_strange_is_said():
    environ = {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "us-central1"}
    asked = Config(providers={"vertex": ProviderConfig(), "all": ProviderConfig("vertex", region="global")})
    made = with_environment(asked, environ).providers
    assert made["vertex"].base_url == "https://us-central1-aiplatform.googleapis.com"
    assert made["all"].base_url == "https://aiplatform.googleapis.com"
    assert made["vertex"].project == "p"
    assert check(with_environment(asked, environ)) == []
    assert {p.where for p in check(with_environment(asked, {}))} == {"providers.vertex", "providers.all"}
    for field, strange in (("region", "a/b"), ("credentials_file", "/none")):
        (problem,) = check(Config(providers={"x": ProviderConfig("vertex", project="p", **{field: strange})}))
        assert problem.where == f"providers.x.{field}"
    both = ProviderConfig("azure", "http://box", api_key="k" * 20, entra=True)
    assert [p.where for p in check(Config(providers={"x": both}))] == ["providers.x.entra"]


def test_the_makers_sdks_read_the_same_in_this_server(server):
    """The judges of the judge: Google's and Anthropic's own clients, with a token that this server takes."""
    server.issued += 1
    google = genai.Client(
        vertexai=True,
        project="box",
        location="europe-west4",
        credentials=Credentials(token_of(server)),
        http_options=genai.types.HttpOptions(base_url=server.url, api_version="v1"),
    )
    chunks = list(google.models.generate_content_stream(model="text", contents="Hi"))
    assert server.last.path == f"{PLACE}/google/models/text:streamGenerateContent"
    (vector,) = (one for one in load("gemini") if one.name == "text")
    said = "".join(e["delta"] for e in vector.content["events"] if e["type"] == "text")
    assert "".join(chunk.text or "" for chunk in chunks) == said
    with AnthropicVertex(
        project_id="box",
        region="europe-west4",
        access_token=token_of(server),
        base_url=f"{server.url}/v1",
        max_retries=0,
    ) as client:
        asked = {"model": "claude-text", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text()
        assert server.last.path == f"{PLACE}/anthropic/models/claude-text:streamRawPredict"
        server.issued += 1
        with pytest.raises(anthropic.AuthenticationError):
            client.messages.create(**asked, stream=True)
