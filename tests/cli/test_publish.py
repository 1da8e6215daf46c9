"""`penstock publish` and `penstock read PATH`: lines and files, there once, over restarts of the gateway."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest

from penstock.cli.exits import Failure
from penstock.cli.publish import size_of
from penstock.cli.publishing import BATCH, any_bytes, whole_lines
from tests.clients.gateway import PATIENCE, wait_for


def content(gateway, path: str) -> bytes:
    return httpx.get(f"{gateway.url}/v1/stream/{path}", timeout=PATIENCE).content


@pytest.fixture
def path(request) -> str:
    """A path of the test's own."""
    return f"cli/{request.node.name}"


@pytest.fixture
def start(environ):
    """Start ``penstock <words>``; it is ended with the test."""
    started = []

    def begin(*words: str, **variables: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environ, **variables},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):
                stream.close()


def test_lines_are_published_and_read(run, at, path):
    said = run("publish", path, stdin="one\ntwo\nthree", **at)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert run("read", path, "--no-follow", **at).stdout == "one\ntwo\nthree"
    run("publish", path, "--close", stdin="\nfour\n", **at)
    assert run("read", path, **at).stdout == "one\ntwo\nthree\nfour\n"
    again = run("publish", path, stdin="five\n", **at)
    assert again.returncode == 1
    assert "is there and closed" in again.stderr


def test_json_lines_are_messages(run, at, path, gateway):
    lines = [{"n": n, "text": "é\u2028"} for n in range(3)]
    stdin = "".join(json.dumps(line, ensure_ascii=False) + "\n\n" for line in lines)
    run("publish", path, "--type", "application/json", "--close", stdin=stdin, **at)
    assert json.loads(content(gateway, path)) == lines
    read = run("read", path, **at).stdout
    assert [json.loads(line) for line in read.split("\n") if line] == lines
    refused = run("publish", f"{path}/2", "--type", "application/json", stdin="{no\n", **at)
    assert (refused.returncode, "not JSON" in refused.stderr) == (1, True)


def test_a_file_comes_out_as_it_went_in(run, at, path, tmp_path):
    data = hashlib.shake_256(b"seed").digest(3 * BATCH + 4321)
    (tmp_path / "big.bin").write_bytes(data)
    said = run("publish", "--file", "big.bin", path, **at)
    assert said.stdout == f"{hashlib.sha256(data).hexdigest()}  {path}\n"
    assert run("read", path, "--output", "out.bin", **at).returncode == 0
    assert (tmp_path / "out.bin").read_bytes() == data
    again = run("publish", "--file", "big.bin", path, **at)
    assert again.returncode == 1


def test_a_link_is_read_like_a_path(run, at, path, gateway):
    run("publish", path, "--close", stdin="one\ntwo\n", **at)
    stream = httpx.head(f"{gateway.url}/v1/stream/{path}").headers["stream-id"]
    link = httpx.post(f"{gateway.url}/v1/streams/{stream}/links", json={}).json()
    said = run("read", f"{gateway.url}{link['url']}")
    assert (said.stdout, said.stderr) == ("one\ntwo\n", "")


def test_of_a_log_that_never_ends_the_newest_lines_are_kept(run, at, path, gateway):
    lines = "".join(f"line {n:06d} {'x' * 200}\n" for n in range(6_000))
    said = run("publish", path, "--keep", "100K", stdin=lines, **at)
    assert (said.returncode, said.stderr) == (0, "")
    wait_for(lambda: len(content(gateway, path)) < len(lines))
    kept = run("read", path, "--no-follow", **at).stdout
    assert lines.endswith(kept)
    assert 100 * 1024 <= len(kept) < len(lines)
    old = run("read", path, "--no-follow", "--from", f"{1:016d}_{1:016d}", **at)  # more may be gone by now
    assert kept.endswith(old.stdout)
    assert old.stderr == "penstock: what came before this is gone.\n"
    run("publish", path, "--close", stdin="the end\n", **at)
    assert f"{kept}the end\n".endswith(run("read", path, **at).stdout)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("500k", 500 << 10), ("50M", 50 << 20), ("2GiB", 2 << 30), ("7b", 7)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["0", "x", "-1", "1.5M", "M", "1T"])
def test_what_is_no_size_is_said(text):
    with pytest.raises(Failure, match="number of bytes"):
        size_of(text)


def test_a_file_of_which_a_part_is_there_is_gone_on_with(run, at, path, tmp_path, gateway):
    data = hashlib.shake_256(b"seed").digest(2 * BATCH)
    (tmp_path / "big.bin").write_bytes(data)
    url, headers = f"{gateway.url}/v1/stream/{path}", {"content-type": "application/octet-stream"}
    httpx.put(url, headers=headers, content=data[:12345])
    assert "--resume" in run("publish", "--file", "big.bin", path, **at).stderr
    assert run("publish", "--file", "big.bin", path, "--resume", **at).returncode == 0
    assert run("read", path, "-o", "out.bin", **at).returncode == 0
    assert (tmp_path / "out.bin").read_bytes() == data


def test_what_is_not_what_its_writer_wrote_is_said(run, at, path, gateway):
    url, headers = f"{gateway.url}/v1/stream/{path}", {"content-type": "text/plain"}
    httpx.put(url, headers=headers, content=b"other")
    wrong = {"stream-closed": "true", "repr-digest": f"sha-256=:{'A' * 43}=:"}
    assert httpx.post(url, headers=wrong).status_code == 204
    said = run("read", path, **at)
    assert (said.returncode, said.stdout) == (1, "other")
    assert "SHA-256 differs" in said.stderr


def test_no_line_is_lost_or_repeated_while_the_gateway_is_killed_again_and_again(own, start, environ):
    at = {"PENSTOCK_URL": own.url}
    writer = start("publish", "logs/app", "--close", **at)
    lines = [f"line {n} " + "x" * (n % 90) for n in range(6000)]
    for n, line in enumerate(lines):
        writer.stdin.write(line.encode() + b"\n")
        if n % 100 == 0:
            writer.stdin.flush()
        if n == 500:
            wait_for(lambda: httpx.head(f"{own.url}/v1/stream/logs/app").status_code == 200)
            reader = start("read", "logs/app", **at)
            first = reader.stdout.readline()
        if n in (1500, 3000, 4500):
            own.restart()
    writer.stdin.close()
    read = (first + reader.stdout.read()).decode()
    assert writer.wait(PATIENCE) == reader.wait(PATIENCE) == 0
    assert read.split("\n")[:-1] == lines
    assert content(own, "logs/app").decode() == read


def test_reading_that_is_stopped_says_how_to_go_on(run, at, path, start):
    run("publish", path, stdin="one\n", **at)
    reader = start("read", path, **at)
    assert reader.stdout.readline() == b"one\n"
    reader.send_signal(signal.SIGINT)
    _, err = reader.communicate(timeout=PATIENCE)
    assert reader.returncode == 130
    offset = err.decode().partition("--from ")[2].split()[0]
    run("publish", path, "--close", stdin="two\n", **at)
    assert run("read", path, "--from", offset, **at).stdout == "two\n"


def test_lines_come_through_as_they_are_written(at, path, start):
    writer = start("publish", path, **at)
    writer.stdin.write(b"first\n")
    writer.stdin.flush()
    wait_for(lambda: httpx.head(f"{at['PENSTOCK_URL']}/v1/stream/{path}").status_code == 200)
    reader = start("read", path, **at)
    for line in (b"second\n", b"third\n"):
        reader_got = reader.stdout.readline()
        writer.stdin.write(line)
        writer.stdin.flush()
    assert reader_got == b"second\n"
    assert reader.stdout.readline() == b"third\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["read", "cli/nothing-here"], 66, "no such stream"),
        (["read", "cli/x", "--from", "yesterday"], 2, "offset"),
        (["read", "cli/x", "--format", "json"], 2, "for generations"),
        (["publish", "a//b"], 1, "path"),
        (["publish", "cli/x", "--resume"], 2, "--resume is for a file"),
        (["publish", "cli/x", "--follow", "a.log", "--close"], 2, "--follow has no end"),
        (["publish", "cli/x", "--from", "end"], 2, "are for --follow"),
        (["publish", "cli/x", "--follow", "a.log", "--type", "image/png"], 2, "--follow is for lines"),
        (["publish", "cli/x", "--follow", "a.log", "--state", "/proc/x"], 73, "--state names another"),
    ],
)
def test_what_cannot_be_is_said(run, at, words, code, says):
    said = run(*words, **at)
    assert (said.returncode, says in said.stderr) == (code, True)


def test_where_nobody_listens_it_says_so_at_once(run):
    began = time.monotonic()
    said = run("publish", "x", stdin="x\n", PENSTOCK_URL="http://127.0.0.1:1")
    assert said.returncode == 69
    assert time.monotonic() - began < PATIENCE


def test_a_terminal_shows_how_far_a_file_is(terminal, at, path, tmp_path):
    big = tmp_path / "big.bin"
    big.write_bytes(b"x" * (BATCH + 1))
    screen = terminal("publish", "--file", str(big), path, **at)
    screen.shows("100%")


# --- what befalls those who publish ----------------------------------------------------------------------


def published(gateway, path) -> bytes:
    """What is there; nothing when there is no stream."""
    found = httpx.get(f"{gateway.url}/v1/stream/{path}", timeout=PATIENCE)
    return found.content if found.status_code == 200 else b""


def test_a_log_is_there_once_while_it_is_rotated_and_everybody_is_killed(own, start, tmp_path):
    log = tmp_path / "app.log"
    lines = [f"line {n} {'x' * (n % 90)}\n" for n in range(4000)]
    words = ("publish", "logs/app", "--follow", str(log))
    writer = start(*words, PENSTOCK_URL=own.url)
    for begin in range(0, 4000, 500):
        with log.open("a") as file:
            file.writelines(lines[begin : begin + 500])
        wait_for(lambda: published(own, "logs/app"))
        match begin // 500:
            case 1 | 5:
                writer.kill()
                writer.wait()
                log.rename(f"{log}.{6 - begin // 500}")
                writer = start(*words, PENSTOCK_URL=own.url)
            case 2:
                own.restart()
            case 3:
                log.rename(f"{log}.3")
            case 4:
                writer.kill()
                own.restart()
                writer.wait()
                writer = start(*words, PENSTOCK_URL=own.url)
    whole = "".join(lines).encode()
    wait_for(lambda: len(published(own, "logs/app")) >= len(whole))
    assert published(own, "logs/app") == whole
    second = start(*words, PENSTOCK_URL=own.url)
    assert b"by another process" in second.communicate(timeout=PATIENCE)[1]
    writer.send_signal(signal.SIGINT)
    assert writer.wait(PATIENCE) == 130


def test_who_publishes_a_log_waits_for_its_gateway_and_says_so(start, tmp_path, path, at):
    log = tmp_path / "app.log"
    log.write_text("one\n")
    writer = start("publish", path, "--follow", str(log), PENSTOCK_URL="http://127.0.0.1:1")
    assert writer.stderr.readline() == b"penstock: nobody listens there; trying again.\n"
    writer.terminate()
    assert writer.wait(PATIENCE) == -signal.SIGTERM


def test_what_came_is_stored_when_it_is_told_to_end(gateway, at, path, start):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        mine = f"{path}/{number}"
        writer = start("publish", mine, "--close", **at)
        writer.stdin.write(b"one\n")
        writer.stdin.flush()
        wait_for(lambda mine=mine: published(gateway, mine) == b"one\n")
        writer.stdin.write(b"two\nhalf a li")
        writer.stdin.flush()
        writer.send_signal(number)
        assert (writer.wait(PATIENCE), published(gateway, mine)) == (code, b"one\ntwo\nhalf a li")
        found = httpx.head(f"{gateway.url}/v1/stream/{mine}")
        assert "stream-closed" not in found.headers  # the input did not end
        assert b"stopping once what came is stored" in writer.stderr.read()


def test_a_second_signal_ends_at_once(own, start):
    writer = start("publish", "logs/app", PENSTOCK_URL=own.url)
    writer.stdin.write(b"one\n")
    writer.stdin.flush()
    wait_for(lambda: published(own, "logs/app") == b"one\n")
    own.stop()
    writer.stdin.write(b"two\n")
    writer.stdin.flush()
    assert b"trying again" in writer.stderr.readline()
    writer.send_signal(signal.SIGINT)
    assert b"Again to stop at once" in writer.stderr.readline()
    writer.send_signal(signal.SIGINT)
    assert writer.wait(PATIENCE) == 130


def test_a_file_whose_publisher_was_killed_is_gone_on_with(own, start, run, tmp_path):
    data = hashlib.shake_256(b"seed").digest(24 * BATCH + 99)
    (tmp_path / "big.bin").write_bytes(data)
    words = ("publish", "--file", str(tmp_path / "big.bin"), "files/big")
    url = f"{own.url}/v1/stream/files/big"
    for round in range(3):
        writer = start(*words, *(["--resume"] if round else []), PENSTOCK_URL=own.url)

        def more(there=12 * BATCH * round // 2) -> bool:
            return int(httpx.head(url).headers.get("stream-next-offset", "_0").partition("_")[2]) > there

        wait_for(more)
        writer.kill()
        writer.wait()
    assert "--resume" in run(*words, PENSTOCK_URL=own.url).stderr or httpx.head(url).headers["stream-closed"]
    run(*words, "--resume", PENSTOCK_URL=own.url)
    found = httpx.get(url)
    assert found.content == data
    assert found.headers["stream-closed"] == "true"


def test_a_stream_that_is_closed_or_gone_meanwhile_is_said(gateway, at, path, start):
    for does, code, says in (
        (lambda url: httpx.post(url, headers={"stream-closed": "true"}), 1, b"The stream is closed."),
        (httpx.delete, 66, b"There is no such stream."),
    ):
        url = f"{gateway.url}/v1/stream/{path}/{code}"
        writer = start("publish", f"{path}/{code}", **at)
        writer.stdin.write(b"one\n")
        writer.stdin.flush()
        wait_for(lambda url=url: httpx.get(url).content == b"one\n")
        assert does(url).status_code == 204
        _, err = writer.communicate(b"two\n", timeout=PATIENCE)
        assert (writer.returncode, says in err) == (code, True)


def test_a_file_that_another_one_writes_to_is_left(gateway, run, at, path, tmp_path):
    data = bytes(2 * BATCH)
    (tmp_path / "big.bin").write_bytes(data)
    url, headers = f"{gateway.url}/v1/stream/{path}", {"content-type": "application/octet-stream"}
    httpx.put(url, headers=headers, content=data[:9])
    other = {**headers, "stream-seq": "1" * 16}
    assert httpx.post(url, headers=other, content=b"x").status_code == 204
    said = run("publish", "--file", "big.bin", path, "--resume", **at)
    assert (said.returncode, "Somebody else writes" in said.stderr) == (1, True)


def test_another_type_than_that_of_what_is_there_is_refused(run, at, path):
    run("publish", path, "--keep", "1M", stdin="x\n", **at)
    said = run("publish", path, "--type", "application/json", stdin="{}\n", **at)
    assert (said.returncode, "is text/plain; charset=utf-8, not application/json" in said.stderr) == (1, True)
    assert run("publish", path, "--keep", "1M", stdin="x\n", **at).stderr == ""
    said = run("publish", path, "--keep", "2M", stdin="x\n", **at)
    assert (said.returncode, "stays as it is" in said.stderr) == (0, True)


def test_a_reader_whose_output_is_closed_ends_without_a_word(gateway, at, path, start, run):
    run("publish", path, stdin="one\n" * 100_000, **at)
    reader = start("read", path, **at)
    assert reader.stdout.readline() == b"one\n"
    reader.stdout.close()
    assert (reader.wait(PATIENCE), reader.stderr.read()) == (141, b"")


@pytest.mark.parametrize(
    ("data", "at_end", "size"),
    [(b"", False, 0), (b"a", False, 0), (b"a", True, 1), (b"a\nb", False, 2), (b"a\nb", True, 3)],
)
def test_whole_lines_are_sent(data, at_end, size):
    assert whole_lines(bytearray(data), at_end=at_end) == size


def test_a_line_that_is_too_long_is_sent_in_pieces():
    data = bytearray(b"x" * (BATCH + 5))
    assert whole_lines(data, at_end=False) == any_bytes(data, at_end=False) == BATCH
    assert whole_lines(bytearray(b"x" * (BATCH - 2) + b"\n" + b"y" * 9), at_end=True) == BATCH - 1
