"""`penstock explain`: a generation as a story, whole and readable, and harmless to a terminal."""

import json
import re

import msgspec
import pytest
from rich.cells import cell_len

from penstock.cli.story import ms, story, usd
from penstock.types.decisions import Decision
from penstock.types.events import Timing, UsageReported
from penstock.types.explanations import (
    Asked,
    AttemptSeen,
    Ending,
    Explanation,
    ReaderSeen,
    SeamSeen,
    Way,
)
from tests.cli.test_verify import created

STREAM = "s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F"

RESCUED = Explanation(
    STREAM,
    "completed",
    f"{STREAM}~0000000000000042",
    42,
    Asked(
        1_790_000_000.0,
        "web-app",
        "chat.completions",
        "openai_chat",
        "fast",
        key="k3j2h1g0f9",
        team="shop",
        request_id="req_1",
        input_tokens=1234,
    ),
    policies=(
        Decision("limits", "waited", "3 of 4 streams at once for the key 'web-app'", 312.0),
        Decision("budget", "held", "$0.001 held for the request; $9.00 left of everybody ($10.00 a day)"),
    ),
    way=Way(("far/a", "near/b", "own/c"), "fastest", ("own/c",), hedged=True),
    attempts=(
        AttemptSeen(1, "far/a", "first", "upstream_reset", False, True, 312, 1312, 100, 500),
        AttemptSeen(2, "near/b", "continuation", "", False, True, 1500, 4000, 50, 300, cost_usd=0.0123),
    ),
    seams=(SeamSeen(13, "prefill", "near/b", "upstream_reset"),),
    timing=Timing(912, 4000, 488, 0, 100, 500, 312, 3088, 0.5),
    usage=UsageReported(1200, 432, cached_tokens=100, estimated=True),
    cost_usd=0.0123,
    end=Ending("completed", True, finish_reason="stop"),
    readers=(ReaderSeen("a link", "native", "", 40, 2, 900),),
)

FAILED = Explanation(
    STREAM,
    "failed",
    "",
    1,
    RESCUED.asked,
    attempts=(AttemptSeen(1, "far/a", "first", "upstream_error", False, True, 1, 300),),
    timing=Timing(total_ms=300, failed_ms=299),
    end=Ending("failed", False, "upstream_error", "It broke.", "upstream", True, 502),
)

OPEN = Explanation(
    STREAM,
    "open",
    "",
    9,
    RESCUED.asked,
    attempts=(AttemptSeen(1, "far/a", "first", "", True, True, 1, 12_000, 5, 0),),
    timing=Timing(total_ms=12_001),
    doing="waiting",
    silent_ms=11_000,
)

RESTARTED = Explanation(
    STREAM,
    "interrupted",
    "",
    9,
    RESCUED.asked,
    seams=(SeamSeen(4, "resumed", code="gateway_restarted"),),
    attempts=(AttemptSeen(1, "far/a", code="gateway_restarted"), AttemptSeen(2, "near/b")),
    timing=Timing(total_ms=90_000),
    end=Ending("interrupted", True, "gateway_restarted", "It was.", "gateway", True, 503),
)


@pytest.mark.parametrize("told", [RESCUED, FAILED, OPEN, RESTARTED], ids=lambda told: told.status)
@pytest.mark.parametrize("width", [60, 80, 100])
def test_what_is_drawn_stays_within_the_width(told, width):
    drawn = [line for line in story(told, width) if re.search("[█░─·]{3}|^ +0 ", line)]
    assert all(cell_len(line) <= width for line in drawn)
    assert drawn or told is RESTARTED


def test_a_story_tells_everything_there_is():
    said = "\n".join(story(RESCUED))
    for part in (
        "web-app asked for fast, a request of about 1,234 tokens",
        "waited 312 ms",
        "$9.00 left of everybody ($10.00 a day)",
        "own/c comes last: its breaker was open.",
        "A target that is slow to begin gets a rival.",
        "1 far/a: first choice\n",
        "sent after 100 ms, first output 500 ms later, upstream_reset after 1,000 ms",
        "4,000 ms · first output after 912 ms · 2 attempts, 1 of them failed · $0.0123\n",
        "2 near/b: went on with the answer\n",
        "sent after 50 ms, first output 300 ms later, done after 2,500 ms, $0.0123",
        "entry 13: near/b went on from the text, given as a beginning, after upstream_reset",
        "the longest gap was 488 ms",
        "1,200 tokens in, 100 of them cached, 432 out (estimated)",
        "$0.0123 in all attempts",
        "completed, finish reason stop",
        "a link (native) has 40 of 42 entries, lags by 2",
    ):
        assert part in said, part


def test_a_failure_tells_what_the_client_had_and_was_told():
    said = "\n".join(story(FAILED))
    assert "upstream_error, fault of the upstream, may be tried again: It broke." in said
    assert "told as HTTP 502" in said
    assert "told in the stream" in "\n".join(story(msgspec.structs.replace(RESTARTED)))


def test_an_answer_that_never_said_what_it_used_is_told_by_its_attempts():
    first, second = RESCUED.attempts
    attempts = (
        msgspec.structs.replace(first, usage=UsageReported(10, 5)),
        msgspec.structs.replace(second, usage=UsageReported(10, 7, estimated=True)),
    )
    said = "\n".join(story(msgspec.structs.replace(RESCUED, usage=None, attempts=attempts)))
    assert "20 tokens in, 12 out (estimated)" in said


@pytest.mark.parametrize("told", [RESCUED, FAILED, OPEN, RESTARTED], ids=lambda told: told.status)
def test_its_beginning_says_the_most_of_it_in_a_line(told):
    gist = story(told)[1]
    for part in {
        "completed": ("4,000 ms", "2 attempts, 1 of them failed"),
        "failed": ("300 ms", "no output", "fault of the upstream"),
        "open": ("so far 12.0 s", "no output", "silent for 11.0 s"),
        "interrupted": ("90.0 s", "2 attempts", "fault of the gateway"),
    }[told.status]:
        assert part in gist


def test_long_names_of_targets_do_not_run_over_the_edge():
    long = "somewhere/a-model-with-a-rather-long-name?and=parameters"
    attempts = tuple(msgspec.structs.replace(one, target=long) for one in RESCUED.attempts)
    seams = (SeamSeen(13, "prefill", long, "upstream_reset"),)
    lines = story(msgspec.structs.replace(RESCUED, attempts=attempts, seams=seams), 100)
    assert all(cell_len(line) <= 100 for line in lines if not line.startswith("  budget"))


def test_the_time_line_puts_things_where_they_happened():
    bar, other = (line for line in story(RESCUED, 100) if "░" in line and "waiting" not in line)
    assert bar.rstrip().endswith("✗")
    assert bar.index("─") < bar.index("░") < bar.index("█")
    assert len(other) - len(other.lstrip()) > len(bar) - 1  # it began when the first had ended
    assert len(other) == 100 - 2 + 2


def test_spans_and_money_are_as_people_write_them():
    assert [ms(0.04), ms(312), ms(9_999), ms(12_345), ms(900_000)] == [
        "0.0 ms",
        "312 ms",
        "9,999 ms",
        "12.3 s",
        "15.0 min",
    ]
    assert [usd(0), usd(0.000_02), usd(1.5)] == ["$0.0000", "$0.000020", "$1.5000"]


def test_a_stream_is_told_to_people_and_to_scripts(gateway, run):
    stream = created(gateway)
    done = run("explain", stream, "--url", gateway.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{stream}  completed\n")
    assert "anonymous asked for demo-echo" in done.stdout
    scripts = run("explain", f"{gateway.url}/v1/streams/{stream}", "--json")
    assert json.loads(scripts.stdout)["end"]["status"] == "completed"


def test_what_is_no_stream_is_refused(gateway, run):
    assert run("explain", "nonsense", "--url", gateway.url).returncode == 2
    unknown = run("explain", STREAM, "--url", gateway.url)
    assert unknown.returncode == 66
    assert "no such stream" in unknown.stderr
