"""What a content filter costs a token: 5,000 words, and each detector.

    python -m bench.content_filter [rounds]

One event of about five characters a call, as providers send them, through the filter of one answer; CPU
time, the best of several rounds. Goal: 5,000 words under 2 µs, with the cost of having a filter at all.
"""

import random
import string
import sys
import time
from typing import Final

from penstock.policies.content_filter import AnswerFilter, Scope
from penstock.policies.detectors import DETECTORS
from penstock.policies.rulebook import RuleSettings, compile_rules
from penstock.policies.rules import Rule, Rules
from penstock.types.events import TextDelta

TOKENS: Final = (
    *(
        "The",
        " water",
        " hammer",
        " is",
        " a",
        " pressure",
        " surge",
        " when",
        " a",
        " fluid",
        " in",
        " motion",
    ),
    *(",", " forced", " to", " stop", " or", " change", " direction", ".", "水锤", "是", "压力"),
) * 400


def words(count: int) -> tuple[str, ...]:
    """Return so many words, a fifth of them Chinese."""
    chance = random.Random(1)
    latin = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(4, 10))) for _ in range(count)]
    chinese = ["".join(chr(chance.randint(0x4E00, 0x9FA5)) for _ in range(3)) for _ in range(count // 5)]
    return tuple(latin[: count - len(chinese)] + chinese)


def cost(rules: Rules) -> float:
    """Return the µs of CPU that a token takes."""
    filter = AnswerFilter(rules, Scope(), "bench", {})
    steps = [[TextDelta(token)] for token in TOKENS]
    began = time.process_time()
    for step in steps:
        filter.feed(step)
    return (time.process_time() - began) / len(TOKENS) * 1e6


def main() -> None:
    """Print one line a case."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cases = {
        "no rule": Rules((Rule("none"),)),
        "5,000 words": compile_rules([RuleSettings(words=words(5_000))]),
    }
    cases |= {name: compile_rules([RuleSettings(detect=(name,))]) for name in DETECTORS}
    for name, rules in cases.items():
        print(f"{name:12} {min(cost(rules) for _ in range(rounds)):5.2f} µs a token")


if __name__ == "__main__":
    main()
