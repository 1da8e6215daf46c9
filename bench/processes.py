"""Child processes under measurement: started on one core, watched, their CPU and memory read from /proc.

Linux only. What is counted is the whole tree below a process (nginx's worker, a gateway's workers) with all
threads. Everything that was started here is stopped here, by its own process id.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
STOP_WITHIN_S = 15.0
LOG_TAIL = 2000


class BenchError(Exception):
    """Why nothing can be reported, in words for whoever runs the benchmark."""


def read_cpu_s(pid: int) -> float:
    """Return user and system time of a process and its threads, in seconds (proc_pid_stat(5), 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def read_pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes: shared pages count by their share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise BenchError("the kernel tells no PSS")


def read_tree(pid: int) -> list[int]:
    """Return the process and everything below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


@dataclass(frozen=True)
class CoreTime:
    """What one core did since the machine started, in seconds."""

    busy: float
    stolen: float

    @classmethod
    def read(cls, core: int) -> Self:
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith(f"cpu{core} "):
                user, nice, system, _, _, irq, softirq, steal, *_ = (int(part) for part in line.split()[1:])
                return cls((user + nice + system + irq + softirq) / CLOCK_TICKS, steal / CLOCK_TICKS)
        raise BenchError(f"core {core} is not online")


class Process:
    """A child process pinned to one core; a context manager that stops it.

    With `talks` its output is read here line by line, else it goes to the log (a full pipe would stop it).
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        core: int,
        log: Path,
        env: dict[str, str],
        talks: bool,
    ) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as errors:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else errors,
                stderr=errors,
                env={**os.environ, **env},
                # Before exec, so that threads and children that it starts at once are pinned as well.
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
                text=True,
            )
        self.pid = self._child.pid

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid} ended={self._child.poll()}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_TAIL:].strip()

    def check(self) -> None:
        """Raise BenchError when the process has ended."""
        status = self._child.poll()
        if status is not None:
            raise BenchError(f"{self.name} died with status {status}: {self.log_tail() or 'it said nothing'}")

    def cpu_s(self) -> float:
        self.check()
        return sum(read_cpu_s(pid) for pid in read_tree(self.pid))

    def pss(self) -> int:
        self.check()
        return sum(read_pss(pid) for pid in read_tree(self.pid))

    def read_line(self) -> str:
        """Return the next line the process prints; BenchError when it ends instead."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self.check()
        return line.strip()

    def write_line(self, line: str) -> None:
        """Say a line to the process, which must be one that `talks`."""
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def read_json(self) -> dict[str, Any]:
        data = json.loads(self.read_line())
        assert isinstance(data, dict)
        return data

    def wait_ready(self, ready: Callable[[], bool], within_s: float = 20.0) -> None:
        """Ask `ready` until it says yes; BenchError when the process dies or takes too long."""
        deadline = time.monotonic() + within_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} was not ready within {within_s:g} s: {self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def require_free(port: int) -> None:
    """Raise BenchError when somebody listens on the port: one would measure the wrong process."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            raise BenchError(f"port {port} is taken ({error}); choose others with --base-port") from None


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET on this machine; OSError when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    """Return whether a GET is answered 200."""
    try:
        return get(port, path)[0] == 200
    except OSError:
        return False
