"""AWS Bedrock as a provider: signed requests over a socket that cuts anywhere; boto3 judges."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials

from penstock.assembly.providers import build_provider
from penstock.config import BadConfig, Config, ProviderConfig, check, with_environment
from penstock.providers import aws
from penstock.providers.aws import AwsSigner
from penstock.providers.bedrock import parse_models, parse_profiles
from penstock.providers.provider import Model
from penstock.types.errors import ClientError, UpstreamError, WireError
from penstock.types.requests import GenerationRequest, Message
from tests.clients.vector_server import Refused, Reply, answer, running
from tests.providers.recorder import Recorder
from tests.vectors import load
from tests.wire.decoding import expected

ACCESS, SECRET, TOKEN = "AKIAGEHEIM", "geheim/secret+key", "geheim-session-token=="
KEY = "a-geheim-key-0123456789"


def is_signed(server, asked) -> bool:
    """Say whether the request carries the signature that botocore would make of it."""
    told = asked.headers.get("authorization", "")
    names = told.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    if "host" not in names or "x-amz-date" not in names:
        return False
    headers = {name: asked.headers[name] for name in names}
    request = AWSRequest(asked.method, server.url + asked.target, headers, asked.data)
    request.context["timestamp"] = asked.headers["x-amz-date"]
    signer = SigV4Auth(Credentials(ACCESS, SECRET, TOKEN), "bedrock", "eu-west-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return told.endswith(f"Signature={signer.signature(text, request)}")


def judge(server, asked):
    if asked.headers.get("authorization") != f"Bearer {KEY}" and not is_signed(server, asked):
        kind = {"x-amzn-ErrorType": "InvalidSignatureException:http://internal"}
        said = f"The canonical request had {asked.headers.get('x-amz-security-token')}"
        raise Refused(403, {"message": said}, kind)
    if asked.path == "/foundation-models":
        entries = [
            {"modelId": "amazon.nova-pro-v1:0", "modelName": "Nova Pro", "responseStreamingSupported": True},
            {"modelId": "amazon.slow", "responseStreamingSupported": False},
        ]
        return Reply(json.dumps({"modelSummaries": entries}).encode())
    if asked.path == "/inference-profiles":
        entry = {"inferenceProfileId": "us.amazon.nova-pro-v1:0", "inferenceProfileName": "US Nova Pro"}
        return Reply(json.dumps({"inferenceProfileSummaries": [entry]}).encode())
    model = unquote(asked.path).removeprefix("/model/").removesuffix("/converse-stream")
    assert asked.path.endswith("/converse-stream")
    if model == "limited":
        raise Refused(429, {"message": "Too many"}, {"x-amzn-ErrorType": "ThrottlingException"})
    return answer("bedrock", model.rpartition(":")[2] if model.startswith("arn:") else model, KIND)


KIND = "application/vnd.amazon.eventstream"


@pytest.fixture(scope="module")
def server():
    with running(judge) as made:
        yield made


@pytest.fixture
def make(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def made(environ=None, **settings):
        config = ProviderConfig(base_url=server.url, region="eu-west-1", **settings)
        return build_provider("box", "bedrock", config, environ or {})

    return made


def asking(**fields):
    return GenerationRequest("m", (Message("user", "Hi"),), **fields)


async def test_all_forms_of_answer_are_understood(make):
    provider = make()
    for vector in load("bedrock"):
        recorder = Recorder(provider.converse(asking(), vector.name))
        error = await recorder.play()
        assert recorder.events == expected(vector), vector.name
        assert (error is None) == ("error" not in vector.content), vector.name
    error = await Recorder(provider.converse(asking(), "cut:text")).play()
    assert error.code in ("upstream_reset", "upstream_truncated")
    await provider.aclose()


async def test_a_name_with_colons_and_slashes_is_signed_as_it_is_sent(make, server):
    provider = make()
    name = "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.x:text"
    assert await Recorder(provider.converse(asking(max_output_tokens=5), name)).play() is None
    assert server.last.target == f"/model/{name.replace(':', '%3A').replace('/', '%2F')}/converse-stream"
    assert server.last.body["inferenceConfig"] == {"maxTokens": 5}
    assert SECRET not in str(server.last.headers)
    found = await provider.models()
    assert found == (
        Model("amazon.nova-pro-v1:0", (), "Nova Pro"),
        Model("us.amazon.nova-pro-v1:0", (), "US Nova Pro"),
    )
    await provider.aclose()


@pytest.mark.parametrize("settings", [{"api_key": KEY}, {"environ": {"AWS_BEARER_TOKEN_BEDROCK": KEY}}])
async def test_a_key_of_its_own_needs_no_signature(make, server, settings):
    provider = make(**settings)
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    assert server.last.headers["authorization"] == f"Bearer {KEY}"
    await provider.aclose()


async def test_what_it_refuses_says_why_and_quotes_no_credential(make, monkeypatch):
    provider = make()
    error = await Recorder(provider.converse(asking(), "limited")).play()
    assert (error.code, error.status, error.retryable) == ("rate_limit_exceeded", 429, True)
    await provider.aclose()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    provider = make()
    conversation = provider.converse(asking(), "text")
    error = await Recorder(conversation).play()
    assert (error.status, error.retryable) == (403, False)
    assert TOKEN not in conversation.conceal(error.message)
    assert conversation.key.failed(error) is False
    await provider.aclose()


async def test_without_credentials_it_says_where_they_are_looked_for(make, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    provider = make()
    with pytest.raises(Exception, match="AWS_ACCESS_KEY_ID") as caught:
        await Recorder(provider.converse(asking(), "text")).play()
    assert (caught.value.code, caught.value.retryable) == ("invalid_api_key", False)
    await provider.aclose()


async def test_a_profile_of_aws_s_own_files_is_used(make, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    told = f"aws_access_key_id={ACCESS}\naws_secret_access_key={SECRET}\naws_session_token={TOKEN}\n"
    (tmp_path / "credentials").write_text(f"[work]\n{told}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    environ = {"AWS_BEARER_TOKEN_BEDROCK": "not this one"}
    provider = await asyncio.to_thread(make, environ, profile="work")  # it reads files, as at a start
    assert await Recorder(provider.converse(asking(), "text")).play() is None
    await provider.aclose()
    with pytest.raises(BadConfig, match="no profile 'play'"):
        await asyncio.to_thread(make, profile="play")


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Run a container's store of credentials, or STS; it answers what ``state`` says, when it may."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
    told = "aws_access_key_id=a\naws_secret_access_key=b\n"
    role = "role_arn=arn:aws:iam::1:role/x\nsource_profile=base\nregion=eu-west-1\n"
    (tmp_path / "config").write_text(f"[base]\n{told}[work]\n{role}[profile work]\n{role}")

    def sell(server, asked):
        assert server.state["open"].wait(30)
        server.state["sold"] += 1
        ends = datetime.now(UTC) + timedelta(seconds=server.state["life"])
        sold = {"AccessKeyId": f"key-{server.state['sold']}", "SecretAccessKey": "s", "Token": "t"}
        if asked.path == "/keys":
            return Reply(json.dumps({**sold, "Expiration": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}).encode())
        raise Refused(403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")

    with running(sell) as server:
        server.state |= {"open": threading.Event(), "sold": 0, "life": 3600}
        server.state["open"].set()
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        yield server


async def test_a_role_that_is_refused_is_the_provider_s_error(store):
    signer = await asyncio.to_thread(AwsSigner, "eu-west-1", "work")
    with pytest.raises(UpstreamError, match="ClientError") as caught:
        await signer.credentials()
    assert (caught.value.code, caught.value.retryable) == ("invalid_api_key", False)


async def test_credentials_that_ended_already_are_the_provider_s_error(store):
    store.state["life"] = -60
    signer = AwsSigner("eu-west-1")
    for _ in range(2):  # botocore finds out when it renews them
        with pytest.raises(UpstreamError) as caught:
            await signer.credentials()
        assert caught.value.code == "invalid_api_key"


async def test_credentials_are_renewed_before_their_end_and_nobody_waits_for_that(store, monkeypatch):
    monkeypatch.setattr(aws, "RENEWING", 30.0)
    store.state["life"] = 800  # botocore renews them in their last 900 seconds
    signer = AwsSigner("eu-west-1")
    assert (await signer.credentials()).access_key == "key-2"  # it looks, and then renews
    store.state["open"].clear()
    first = asyncio.ensure_future(signer.credentials())
    await asyncio.sleep(0)
    assert {(await signer.credentials()).access_key for _ in range(20)} == {"key-2"}
    store.state["open"].set()
    assert (await first).access_key == "key-3"


async def test_who_renews_credentials_that_hold_does_not_wait_for_long(store, monkeypatch):
    monkeypatch.setattr(aws, "RENEWING", 0.0)
    store.state["life"] = 800
    signer = AwsSigner("eu-west-1")
    assert (await signer.credentials()).access_key == "key-2"
    store.state["open"].clear()
    assert {(await signer.credentials()).access_key for _ in range(3)} == {"key-2"}
    store.state["open"].set()


async def test_what_it_has_no_place_for_is_left_out_or_refused(make):
    lax, strict = make(), make(unsupported="refuse")
    asked = asking(seed=1, logprobs=True, user="u")
    assert sorted(lax.converse(asked, "text").dropped) == ["logprobs", "seed", "user"]
    with pytest.raises(ClientError, match="seed"):
        strict.converse(asked, "text")
    await lax.aclose()
    await strict.aclose()


def test_it_joins_by_configuration_alone_and_is_where_its_region_is():
    environ = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_BEARER_TOKEN_BEDROCK": KEY, "AWS_REGION": "us-west-2"}
    assert "bedrock" not in with_environment(Config(), environ).providers
    asked = Config(
        providers={"bedrock": ProviderConfig(), "cn": ProviderConfig("bedrock", region="cn-north-1")}
    )
    made = with_environment(asked, environ).providers
    assert made["bedrock"].base_url == "https://bedrock-runtime.us-west-2.amazonaws.com"
    assert made["cn"].base_url == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    (problem, _) = check(with_environment(asked, {})), None
    assert ["providers.bedrock" in p.where for p in problem] == [True]
    (strange,) = check(Config(providers={"x": ProviderConfig("bedrock", "http://box", region="Mars")}))
    assert strange.where == "providers.x.region"


def test_lists_that_are_none_are_refused():
    for strange in (None, [], {}, {"modelSummaries": {}}):
        with pytest.raises(WireError):
            parse_models(strange)
        with pytest.raises(WireError):
            parse_profiles(strange)
    assert parse_models({"modelSummaries": [{}, "x", {"modelId": 1}, {"modelId": "a"}]}) == (Model("a"),)


def test_boto3_reads_the_same_in_this_server(server):
    """The judge of the judge: AWS's own client, with the signature that this server asks for."""
    client = boto3.client(
        "bedrock-runtime",
        region_name="eu-west-1",
        endpoint_url=server.url,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
        config=BotoConfig(retries={"max_attempts": 0}),
    )
    talk = [{"role": "user", "content": [{"text": "Hi"}]}]
    for vector in load("bedrock"):
        if "error" in vector.content or vector.name == "unknown_events":
            continue
        text, given, reason = "", "", None
        for event in client.converse_stream(modelId=vector.name, messages=talk)["stream"]:
            delta = event.get("contentBlockDelta", {}).get("delta", {})
            text += delta.get("text", "")
            given += delta.get("toolUse", {}).get("input", "")
            reason = event.get("messageStop", {}).get("stopReason", reason)
        events = vector.content["events"]
        assert text == "".join(e["delta"] for e in events if e["type"] == "text"), vector.name
        assert given == "".join(e.get("delta", "") for e in events if e["type"] == "tool_call"), vector.name
        assert reason is not None
    with pytest.raises(client.exceptions.ThrottlingException):
        client.converse_stream(modelId="limited", messages=talk)
    client.close()
