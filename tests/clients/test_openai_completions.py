"""OpenAI's legacy Completions with its Python SDK, unchanged but for its base URL."""

import openai
import pytest

from tests.clients.conftest import settings
from tests.clients.gateway import PATIENCE, serving


@pytest.fixture(scope="module")
def sdk(tmp_path_factory, upstream):
    more = {"retry": {"tries": 1, "tries_in_all": 1}, "listen": {"commit_after": 10.0}}
    with (
        serving(tmp_path_factory.mktemp("hasty"), settings(upstream, **more)) as gateway,
        openai.OpenAI(base_url=gateway.api, api_key="unused", max_retries=0, timeout=PATIENCE) as sdk,
    ):
        yield sdk


def says(prompt="one two three", model="demo-echo", **more):
    return {"model": model, "prompt": prompt, **more}


def chunks(sdk, into=None, **request):
    into = [] if into is None else into
    for chunk in sdk.completions.create(**request, stream=True):
        into.append(chunk)
    return into


def text_of(found, index=0):
    return "".join(c.text for chunk in found for c in chunk.choices if c.index == index)


def test_a_streamed_answer_is_the_whole_answer(sdk):
    found = chunks(sdk, **says(stream_options={"include_usage": True}))
    whole = sdk.completions.create(**says())
    assert text_of(found) == whole.choices[0].text == "one two three"
    assert found[-1].usage == whole.usage
    assert found[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert found[0].id.startswith("cmpl-")


def test_several_choices_a_refusal_an_empty_answer_and_a_limit(sdk):
    found = chunks(sdk, **says(n=2))
    assert [text_of(found, index) for index in (0, 1)] == ["one two three"] * 2
    assert text_of(chunks(sdk, **says(model="demo-refusal")))
    assert text_of(chunks(sdk, **says(model="demo-empty"))) == ""
    assert sdk.completions.create(**says(max_tokens=2)).choices[0].finish_reason == "length"


def test_silence_is_borne(sdk):
    assert text_of(chunks(sdk, **says("x", "pausing"))) == "before after"


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_any_output_is_an_error(sdk, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.completions.create(**says(model="nope"), stream=stream)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError):
        sdk.completions.create(**says(model="demo-rate-limited"), stream=stream)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.completions.create(**says(["a", "b"]), stream=stream)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("model", ["demo-error", "demo-cut", "demo-truncated"])
def test_an_answer_that_breaks_off_raises_after_what_came(sdk, model):
    found = []
    with pytest.raises(openai.APIError) as caught:
        chunks(sdk, found, **says("Hello", model))
    assert caught.value.message
    assert text_of(found)
    with pytest.raises(openai.InternalServerError):
        sdk.completions.create(**says("Hello", model))
