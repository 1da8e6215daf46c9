"""The history of the input line."""

import json
import stat

import pytest

from penstock.cli.editing import MAX_ENTRY, MAX_HISTORY, BoundedHistory, history_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "history"


def test_entries_come_back_newest_first_with_their_lines(path):
    history = BoundedHistory(path)
    for entry in ("one", "two\nlines", "流"):
        history.store_string(entry)
    assert list(BoundedHistory(path).load_history_strings()) == ["流", "two\nlines", "one"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_does_not_grow_without_end(path):
    path.parent.mkdir()
    path.write_text("".join(json.dumps(str(number)) + "\n" for number in range(MAX_HISTORY + 500)))
    history = BoundedHistory(path)
    assert len(list(history.load_history_strings())) == MAX_HISTORY
    assert path.read_text().count("\n") == MAX_HISTORY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    history.store_string("x" * (MAX_ENTRY + 1))
    assert path.read_text().count("\n") == MAX_HISTORY


def test_a_damaged_file_loses_only_what_is_damaged(path):
    path.parent.mkdir()
    path.write_bytes(b'"good"\nnot json\n{"a": 1}\n"\xff"\n"better"\n"half')
    assert list(BoundedHistory(path).load_history_strings()) == ["better", "\ufffd", "good"]


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    history = BoundedHistory(tmp_path / "file" / "history")
    history.store_string("x")
    assert list(history.load_history_strings()) == []


def test_the_file_is_where_the_system_says():
    assert str(history_file({"HOME": "/h"})) == "/h/.local/state/penstock/chat_history"
    assert str(history_file({"HOME": "/h", "XDG_STATE_HOME": "/s"})) == "/s/penstock/chat_history"
