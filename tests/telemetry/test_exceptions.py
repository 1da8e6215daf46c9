"""Exceptions as text for a log."""

import pytest

from penstock.telemetry.exceptions import MAX_FRAMES, MAX_MESSAGE, message_of, trace_of


def raised(source: str, **names) -> Exception:
    """Return what ``source`` raises."""
    try:
        exec(source, names)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError


PROMPT = "my secret plan"


@pytest.mark.parametrize(
    "source",
    [
        "int(prompt)",
        "{}[prompt]",
        "prompt.encode().index(b'zz')",
        "(prompt + '\\ud800').encode()",
        "raise ValueError(prompt.join(['\"', '\"']))",
        "raise ValueError(repr(prompt * 1000))",
        "raise ExceptionGroup('several', [ValueError(f'no {prompt!r}'), KeyError(prompt)])",
        "raise RuntimeError('it failed') from KeyError(prompt)",
    ],
)
def test_a_message_does_not_quote_a_client(source):
    error = raised(source, prompt=PROMPT)
    assert PROMPT not in trace_of(error)
    assert PROMPT not in message_of(error)


def test_a_message_keeps_names_and_what_is_ours():
    assert message_of(raised("None.strip")) == "AttributeError: 'NoneType' object has no attribute 'strip'"
    assert message_of(raised("raise OSError(28, 'No space left')")) == "OSError: [Errno 28] No space left"


def test_a_trace_says_where_and_what_before_it():
    def outer():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise RuntimeError("second") from error

    trace = trace_of(raised("outer()", outer=outer))
    first, second = trace.index("KeyError"), trace.index("RuntimeError: second")
    assert first < trace.index("then:") < second
    assert "test_exceptions.py" in trace
    assert " in outer: raise RuntimeError(" in trace


def test_traces_are_bounded():
    def deeper(n: int) -> None:
        if n == 0:
            raise ValueError("x" * 10_000)
        deeper(n - 1)

    trace = trace_of(raised("deeper(200)", deeper=deeper))
    assert trace.count("\n") <= MAX_FRAMES
    assert len(trace.splitlines()[-1]) <= MAX_MESSAGE + len("ValueError: ")


def test_an_error_whose_text_cannot_be_had_is_named():
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert message_of(Broken()).endswith("Broken")
