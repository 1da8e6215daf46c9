"""A file that grows, is rotated in all ways and published by processes that are killed: each line once."""

import os
import shutil

import pytest

from penstock.cli.exits import Failure
from penstock.cli.following import Checkpoint, Followed, Store

LINES = [f"line {n:04d} {'x' * 60}\n" for n in range(100)]


class Reader:
    """What a `Followed` gives, and what it says; goes on like a process after another."""

    def __init__(self, path):
        self.path = path
        self.got, self.said = "", []
        self.checkpoint = Checkpoint("p")
        self.followed = Followed(path, self.said.append)

    def take(self, *, stored=True):
        """Take what there is; the last batch may not be known as stored."""
        quiet = 0
        while quiet < 4:
            batch = self.followed.take()
            if batch is None:
                quiet += 1
                continue
            quiet = 0
            self.checkpoint = Checkpoint("p", 0, 0, batch.place, batch.size, batch.ended)
            self.got += batch.content.decode()
            if stored:
                self.followed.done(batch)
                self.checkpoint = Checkpoint("p", 0, 0, self.followed.place)
            else:
                break

    def restart(self):
        """What the next process is given again is what may be there already."""
        self.followed.close()
        self.followed = Followed(self.path, self.said.append)
        batch = self.followed.resume(self.checkpoint)
        if batch is not None:
            assert self.got.endswith(batch.content.decode())
            self.followed.done(batch)
        return batch


@pytest.fixture
def log(tmp_path):
    return tmp_path / "app.log"


@pytest.fixture
def reader(log):
    reader = Reader(log)
    yield reader
    reader.followed.close()


def write(path, *lines):
    with path.open("a") as file:
        file.write("".join(lines))


def test_lines_come_as_they_are_written_and_whole(log, reader):
    reader.take()
    write(log, "one\ntw")
    reader.take()
    assert reader.got == "one\n"
    write(log, "o\nthree\n")
    reader.take()
    assert reader.got == "one\ntwo\nthree\n"
    assert reader.said == [f"{log} is not there; waiting for it."]


def test_a_file_that_is_renamed_is_read_to_its_end_before_the_new_one(log, reader):
    write(log, *LINES[:2])
    reader.take()
    old = log.open("a")
    log.rename(f"{log}.1")
    log.touch()
    reader.take()
    old.write(LINES[2])  # the writer has not noticed yet
    old.flush()
    reader.take()
    old.write(LINES[3].rstrip())
    old.close()
    write(log, LINES[4])
    reader.take()
    assert reader.got == "".join(LINES[:5])
    assert reader.said == []


@pytest.mark.parametrize("name", ["{}.{}", "{}-2026112{}", "{}.2026-11-2{}"])
def test_files_that_were_rotated_while_nobody_looked_are_read_in_order(log, reader, name):
    def old(number):
        return log.with_name(name.format(log.name, number if name == "{}.{}" else 9 - number))

    write(old(4), "long ago, and published then\n")
    write(log, *LINES[:4])
    reader.take()
    write(log, *LINES[4:10])
    log.rename(old(3))
    write(old(2), *LINES[10:20])
    write(old(1), *LINES[20:30])
    write(log, *LINES[30:40])
    write(log.with_name("app.log.bak"), "other\n")
    write(log.with_name("app.log.5.gz"), "other\n")
    reader.restart()
    reader.take()
    assert reader.got == "".join(LINES[:40])
    assert reader.said == []


def test_a_file_that_is_copied_and_emptied_is_read_to_its_end_in_the_copy(log, reader):
    write(log, *LINES[:10])
    reader.take()
    write(log, *LINES[10:12])
    shutil.copy(log, f"{log}.1")
    os.truncate(log, 0)
    write(log, *LINES[12:40])  # more than there was
    reader.take()
    assert reader.got == "".join(LINES[:40])
    assert reader.said == []


def test_a_file_that_is_emptied_for_good_is_said_to_be(log, reader):
    write(log, *LINES[:10])
    reader.take()
    os.truncate(log, 0)
    write(log, *LINES[20:22])
    reader.take()
    assert reader.got == "".join(LINES[:10] + LINES[20:22])
    assert reader.said == ["app.log was emptied; going on at its start."]


def test_what_may_be_stored_is_given_again_as_it_was(log, reader):
    write(log, *LINES[:3])
    reader.take(stored=False)
    write(log, *LINES[3:5])
    assert reader.restart().size == len("".join(LINES[:3]))
    reader.take()
    assert reader.got == "".join(LINES[:5])


def test_a_last_line_without_an_end_is_given_again_with_the_one_it_got(log, reader):
    write(log, "no end")
    reader.take()
    log.rename(f"{log}.1")
    write(log, "next\n")
    reader.take(stored=False)
    assert reader.restart().ended
    reader.take()
    assert reader.got == "no end\nnext\n"


def test_where_the_old_file_is_gone_it_is_said(log, reader):
    write(log, *LINES[:3])
    reader.take(stored=False)
    log.unlink()
    write(log, *LINES[5:6])
    assert reader.restart() is None
    reader.take()
    assert reader.got == "".join(LINES[:3] + LINES[5:6])
    assert reader.said == ["app.log was replaced: what was written to it last may be missing."]


def test_a_new_file_with_the_same_inode_is_another_one(log, reader):
    write(log, *LINES[:3])
    reader.take()
    with log.open("r+") as file:  # as if the number had been given again
        file.write("".join(LINES[50:60]))
    reader.restart()
    reader.take()
    assert reader.got == "".join(LINES[:3] + LINES[50:60])


def test_only_what_is_written_from_now_on(log, reader):
    write(log, *LINES[:3])
    reader.followed.begin(at_end=True)
    write(log, LINES[3])
    reader.take()
    assert reader.got == LINES[3]


def test_what_cannot_be_read_is_said(tmp_path):
    write(tmp_path / "file", "x")
    with pytest.raises(Failure, match="cannot be read") as failed:
        Followed(tmp_path / "file" / "x", print).take()
    assert failed.value.code == 66


# --- the checkpoint ------------------------------------------------------------------------------------


def test_a_checkpoint_is_there_for_the_next_process_and_for_one_at_a_time(tmp_path):
    path = tmp_path / "state" / "publish.json"
    with Store(path) as store:
        assert store.load() is None
        store.save(Checkpoint("p" * 200, 1, 2, None, 3, ended=True))
        store.save(Checkpoint("p", 1, 2))
    assert path.stat().st_mode & 0o777 == 0o600
    with Store(path) as store:
        assert store.load() == Checkpoint("p", 1, 2)


@pytest.mark.parametrize("content", ["{no", '{"producer": 1}', "\x00" * 1024])
def test_a_checkpoint_that_is_none_is_said_and_left_alone(tmp_path, content):
    path = tmp_path / "publish.json"
    path.write_text(content)
    with Store(path) as store, pytest.raises(Failure, match="is not what penstock publish wrote"):
        store.load()
    assert path.read_text() == content


def test_where_no_checkpoint_can_be_it_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="cannot be written") as failed, Store(tmp_path / "file" / "x"):
        pass
    assert failed.value.code == 73
