"""What was asked and answered, for traces: bounded, of the right stream, forgotten with it."""

import msgspec

from penstock.policies.transcripts import MAX_CHARS, Transcripts
from penstock.types.events import Finished, TextDelta
from penstock.types.outcomes import Outcome
from penstock.types.requests import TextPart
from penstock.types.signals import CallAccepted, StreamEnded, Subject
from tests.gateway.hand import call


def begun(transcripts, stream, made):
    """As the gateway does it: the signal, then the filter."""
    transcripts(CallAccepted(Subject(stream, "me", "r", "m")))
    return transcripts.filter(made)


def test_each_stream_has_its_own_and_what_passes_is_as_it_was():
    transcripts = Transcripts()
    one, other = begun(transcripts, "s_1", call("first?")), begun(transcripts, "s_2", call("second?"))
    events = [TextDelta("a"), TextDelta("b"), Finished("stop")]
    assert one.feed(events) is events
    other.feed([TextDelta("c")])
    assert list(one.flush()) == []
    assert msgspec.json.decode(transcripts.of("s_1").asked) == [
        {"role": "user", "parts": [{"type": "text", "content": "first?"}]}
    ]
    assert msgspec.json.decode(transcripts.of("s_1").answered) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "ab"}], "finish_reason": "stop"}
    ]
    assert '"c"' in transcripts.of("s_2").answered
    transcripts(StreamEnded(Subject("s_1", "me", "r", "m"), Outcome("completed", "s_1")))
    assert transcripts.of("s_1") is None


def test_long_texts_are_cut():
    transcripts = Transcripts()
    made = call("z" * (2 * MAX_CHARS))
    note = begun(transcripts, "s", made)
    for _ in range(10):
        note.feed([TextDelta("w" * (MAX_CHARS // 4))])
    assert transcripts.of("s").asked.count("z") == MAX_CHARS
    assert transcripts.of("s").answered.count("w") == MAX_CHARS


def test_parts_of_a_message_are_told_and_other_than_text_is_left_out():
    made = call()
    message = msgspec.structs.replace(made.request.messages[0], content=(TextPart("a"), TextPart("b")))
    request = msgspec.structs.replace(made.request, messages=(message,))
    transcripts = Transcripts()
    begun(transcripts, "s", msgspec.structs.replace(made, request=request))
    parts = msgspec.json.decode(transcripts.of("s").asked)[0]["parts"]
    assert [part["content"] for part in parts] == ["a", "b"]


async def test_nobody_is_refused_and_a_call_without_a_stream_is_not_noted():
    transcripts = Transcripts()
    made = call()
    assert (await transcripts.admit(made)).call is made
    assert transcripts.filter(made) is None
