"""A moment of fuzzing, with the same inputs each time, and every input that once broke something.

`make fuzz` looks for new ones, for as long as it is told.
"""

import random
from pathlib import Path

import pytest

from tests.fuzz.fuzzer import attempt, search
from tests.fuzz.mutations import MAX_BYTES, spoil
from tests.fuzz.targets import Target, targets

TARGETS = targets()
FOUND = sorted(path for path in (Path(__file__).parent / "found").iterdir())
TRIES = 150


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_spoiled_input_breaks_no_parser(name):
    target = TARGETS[name]
    try:
        fuzzer = search(target, 0, lambda fuzzer: fuzzer.tried < len(target.examples) + TRIES)
    finally:
        target.close()
    assert not fuzzer.crashes, next(iter(fuzzer.crashes.values())).trace
    assert len(fuzzer.outcomes) > 1


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_what_broke_something_once_does_no_more(path):
    target = TARGETS[path.name.rpartition("-")[0]]
    try:
        _, crash = attempt(target, path.read_bytes())
    finally:
        target.close()
    assert crash is None, crash.trace


def test_a_defect_is_found_and_written_down(tmp_path):
    def brittle(data):
        if b'"deep"' in data and b"null" in data:
            raise KeyError("deep")
        return len(data) % 3

    target = Target("brittle", brittle, [b'{"deep": {"deeper": 1}}'])
    fuzzer = search(target, 0, lambda fuzzer: fuzzer.tried < 2_000 and not fuzzer.crashes)
    (crash,) = fuzzer.crashes.values()
    path = crash.write(tmp_path)
    assert path.read_bytes() == crash.data
    assert "KeyError" in path.with_suffix(".txt").read_text()
    assert attempt(target, path.read_bytes())[1] is not None


def test_the_same_seed_spoils_in_the_same_way():
    examples = [b'{"a": [1, {"b": "c"}]}\n{"d": 2}', b"x: y\r\n"]
    rngs = random.Random(1), random.Random(1)
    made = [[spoil(examples[0], examples, rng) for _ in range(200)] for rng in rngs]
    assert made[0] == made[1]
    assert len(set(made[0])) > 100
    assert max(map(len, made[0])) <= MAX_BYTES
