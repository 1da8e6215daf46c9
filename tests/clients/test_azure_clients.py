"""Azure's client of OpenAI's Python SDK, unchanged but for its endpoint, and what older ones send."""

import httpx
import openai
import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream):
    more = {"retry": {"tries": 1, "tries_in_all": 1}, "listen": {"commit_after": 10.0}}
    with serving(tmp_path_factory.mktemp("azure"), settings(upstream, **more)) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(gateway):
    with openai.AzureOpenAI(
        azure_endpoint=gateway.api.removesuffix("/v1"),
        api_key="unused",
        api_version="2024-10-21",
        max_retries=0,
        timeout=PATIENCE,
    ) as made:
        yield made


SAID = [{"role": "user", "content": "one two three"}]


def test_a_deployment_is_a_model(sdk):
    whole = sdk.chat.completions.create(model="demo-echo", messages=SAID)
    assert whole.choices[0].message.content == "one two three"
    chunks = list(sdk.chat.completions.create(model="demo-echo", messages=SAID, stream=True))
    assert "".join(c.delta.content or "" for k in chunks for c in k.choices) == "one two three"
    assert sdk.completions.create(model="demo-echo", prompt="one two").choices[0].text == "one two"


def test_an_unknown_deployment_is_an_error_of_openai_s_form(sdk):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nobody", messages=SAID)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(model="demo-echo", messages="none")


@pytest.mark.parametrize("where", ["openai/deployments", "v1/engines"])
def test_the_url_names_the_model_whatever_the_body_says(gateway, where):
    root = gateway.api.removesuffix("/v1")
    with httpx.Client(base_url=root, timeout=PATIENCE, headers={"api-key": "unused"}) as client:
        url = f"/{where}/demo-echo/chat/completions?api-version=2023-05-15"
        for more in ({}, {"model": "nobody"}):
            answer = client.post(url, json={"messages": SAID, **more}).raise_for_status().json()
            assert answer["choices"][0]["message"]["content"] == "one two three"
        url = f"/{where}/demo-echo/completions"
        said = client.post(url, json={"prompt": "one"}).raise_for_status().json()
        assert said["choices"][0]["text"] == "one"
        assert client.post(url, content=b"[]", headers={"content-type": "application/json"}).is_client_error
        said = client.post(f"/{where}/some/body/else/completions", json={"prompt": "one"}).json()
        assert "some/body/else" in said["error"]["message"]  # slashes are part of a name
