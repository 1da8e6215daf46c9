"""Presets: what is asked when a caller says this, and that a caller can say no more than that."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock.gateway.presets import MAX_CONTENT, Parameters, Preset, Variable, places
from penstock.types.errors import ClientError

TRANSLATE = Preset(
    "translate",
    "m",
    "Translate into {{language}}, {{ tone }}.",
    "Text: {{content}}",
    variables={
        "language": Variable("English", choices=("English", "German")),
        "tone": Variable(max_chars=10),
    },
    parameters=Parameters(temperature=0.2, max_tokens=9, stop=("END",)),
)


def said(request):
    return [(message.role, message.content) for message in request.messages]


def test_places_are_filled_and_parameters_are_the_operators():
    request = TRANSLATE.request("Guten Tag", {"tone": "kindly"})
    assert said(request) == [("system", "Translate into English, kindly."), ("user", "Text: Guten Tag")]
    assert (request.model, request.temperature, request.max_output_tokens, request.stop) == (
        "m",
        0.2,
        9,
        ("END",),
    )


@pytest.mark.parametrize(
    ("content", "variables", "code", "param"),
    [
        ("", {"tone": "a"}, "missing_required_parameter", "content"),
        ("x" * (MAX_CONTENT + 1), {"tone": "a"}, "invalid_value", "content"),
        ("x", {}, "missing_required_parameter", "variables.tone"),
        ("x", {"tone": "a", "language": "Klingon"}, "invalid_value", "variables.language"),
        ("x", {"tone": "a" * 11}, "invalid_value", "variables.tone"),
        ("x", {"tone": "a", "model": "dear"}, "invalid_value", "variables.model"),
        ("x", {"tone": "a", "content": "y"}, "invalid_value", "variables.content"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name(content, variables, code, param):
    with pytest.raises(ClientError) as refused:
        TRANSLATE.request(content, variables)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_a_preset_without_a_place_for_content_needs_none():
    assert said(Preset("joke", "m", content="Tell a joke.").request("", {})) == [("user", "Tell a joke.")]


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_what_is_put_in_stays_what_it_is(tone, content):
    preset = Preset("p", "m", "A {{x}} B {{x}}", "{{content}}|{{x}}", variables={"x": Variable()})
    request = preset.request(content, {"x": tone})
    assert said(request) == [("system", f"A {tone} B {tone}"), ("user", f"{content}|{tone}")]


def test_places_are_found_however_they_are_spaced():
    assert places("{{a}} {{ b }} {{  c}} {{d e}} { {f}} {{}} {{1}}") == {"a", "b", "c"}
