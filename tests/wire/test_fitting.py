"""What a target cannot be told: refused or told, by the operator's rule; never passed over."""

import pytest

from penstock.types.errors import ClientError
from penstock.types.requests import GenerationRequest, Message, Tool
from penstock.wire.fitting import MAX_NAMES, Fitting


def asking(**fields) -> GenerationRequest:
    return GenerationRequest("m", (Message("user", "Hi"),), **fields)


EVERYTHING = asking(
    max_output_tokens=5,
    temperature=0.0,
    top_p=0.5,
    stop=("x",),
    seed=0,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    logprobs=True,
    top_logprobs=2,
    tools=(Tool("f"),),
    tool_choice="required",
    parallel_tool_calls=False,
    response_format={"type": "json_object"},
    reasoning_effort="low",
    user="u",
    store=False,
    metadata={"a": "b"},
    extra={"logit_bias": {"1": 2}, "strange": 1, "max_tokens": None, "stream_options": {"x": 1}},
)


def test_everything_that_is_asked_and_not_known_is_told():
    fitting = Fitting("p")
    fitting.check(EVERYTHING, ())
    assert set(fitting.dropped) == {
        *("max_tokens", "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty"),
        *("logprobs", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("reasoning_effort", "user", "store", "metadata", "logit_bias", "strange"),
    }


def test_what_goes_without_saying_is_not_told():
    fitting = Fitting("p", "refuse")
    request = asking(
        tool_choice="auto",
        parallel_tool_calls=True,
        logprobs=False,
        response_format={"type": "text"},
        metadata={},
        extra={"logit_bias": None, "functions": []},
    )
    fitting.check(request, ())
    assert fitting.dropped == ()


@pytest.mark.parametrize(
    ("request_", "name"),
    [(asking(seed=1), "seed"), (asking(extra={"logit_bias": {"1": 1}}), "logit_bias")],
)
def test_by_the_strict_rule_it_is_an_error_that_names_it(request_, name):
    with pytest.raises(ClientError) as caught:
        Fitting("box", "refuse").check(request_, ())
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", name)
    assert "'box'" in caught.value.message


def test_what_says_nothing_about_the_answer_is_never_refused_and_still_told():
    fitting = Fitting("p", "refuse")
    fitting.check(asking(user="u", metadata={"a": "b"}, extra={"service_tier": "flex"}), ())
    assert fitting.dropped == ("user", "metadata", "service_tier")


def test_several_choices_cannot_be_dropped():
    with pytest.raises(ClientError, match="'n' must be 1, not 2"):
        Fitting("p").one_answer(asking(n=2))


def test_names_are_bounded_and_fit_in_a_header():
    fitting = Fitting("p")
    fitting.check(asking(extra={"a\r\nset-cookie: x": 1, "ü" * 500: 1} | {f"x{i}": 1 for i in range(99)}), ())
    assert len(fitting.dropped) == MAX_NAMES
    assert fitting.dropped[0] == "a??set-cookie??x"
    assert all(name.isascii() and len(name) <= 64 for name in fitting.dropped)
