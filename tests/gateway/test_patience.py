"""How long a target is waited for, and by which word of the operator's."""

import msgspec
import pytest

from penstock.assembly.system import assemble
from penstock.config import Config
from penstock.gateway.patience import thinks, timers_of
from penstock.providers.provider import Target
from penstock.types.requests import GenerationRequest
from penstock.types.timers import THINKING, USUAL, Timers

ASK = GenerationRequest("m", ())


@pytest.mark.parametrize(
    "model",
    ["o1", "o3-mini", "openai/o4-mini", "gpt-5", "gpt-5-nano", "deepseek-reasoner", "deepseek-r1:14b",
     "DeepSeek-R1", "qwq:32b", "kimi-k2-thinking", "magistral-small", "phi4-reasoning"],
)  # fmt: skip
def test_models_that_always_think_are_known_by_their_names(model):
    assert thinks(ASK, model)


@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-4.1", "claude-sonnet-4-5", "llama3.2", "demo", "qwen3", "o", "foo1", "turbo3"]
)
def test_others_think_when_they_are_asked_to(model):
    assert not thinks(ASK, model)
    assert thinks(msgspec.structs.replace(ASK, reasoning_effort="low"), model)
    assert not thinks(msgspec.structs.replace(ASK, reasoning_effort="none"), model)


def test_one_that_thinks_is_waited_for_longer_where_nothing_else_is_said():
    target = Target("a", "a", "m", thinking=THINKING)
    asked = msgspec.structs.replace(ASK, reasoning_effort="high")
    assert timers_of(target, ASK) == USUAL
    assert timers_of(target, asked).first_output > USUAL.first_output
    assert timers_of(Target("a", "a", "m"), asked) == USUAL


TIMERS = {"connect": 1, "head": 2, "first_output": 3, "stall": 4, "min_rate": 5, "total": 6}


@pytest.mark.parametrize("timer", TIMERS)
def test_what_is_said_nearest_counts_for_every_timer(timer):
    def said(value):
        return {timer: value}

    config = msgspec.convert(
        {
            "store": {"kind": "memory"},
            "discover": False,
            "timers": said(11),
            "models": {
                "of the target": {
                    "targets": [{"provider": "demo", "model": "demo", "timers": said(33)}],
                    "timers": said(22),
                },
                "of the model": {"targets": [{"provider": "demo", "model": "demo"}], "timers": said(22)},
                "of all": [{"provider": "demo", "model": "demo"}],
            },
        },
        Config,
    )
    gateway = assemble(config, {}).gateway
    for model, value in {"of the target": 33, "of the model": 22, "of all": 11}.items():
        (target,) = gateway.setup.routing.route(model)
        for timers in (target.timers, target.thinking):
            assert getattr(timers, timer) == value
            others = msgspec.structs.asdict(timers)
            usual = msgspec.structs.asdict(USUAL if timers is target.timers else THINKING)
            assert {k: v for k, v in others.items() if k != timer} == {
                k: v for k, v in usual.items() if k != timer
            }


def test_every_timer_has_a_setting_and_a_default():
    assert set(TIMERS) | {"window"} == set(Timers.__struct_fields__)
