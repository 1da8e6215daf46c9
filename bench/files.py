"""A large file through a publication: how fast, in how much memory, and is it the same file?

    python -m bench.files              1 GiB, published by the command and read back by it
    python -m bench.files --mebibytes 64

The file is of chance. `penstock publish --file` sends it to a gateway with the embedded store, then
`penstock read --output` fetches it; each is a process of its own, the gateway on one core and the command
on another. The figures: MB (of 10^6 bytes) a second, the largest resident set that the gateway and the
commands had, CPU of the gateway, and whether the SHA-256 of both files is one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.processes import BenchError, Process, answers

ROOT = Path(__file__).resolve().parent.parent
ENV = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
MEBIBYTE = 1 << 20
READY_WITHIN_S = 60.0
GREETING = re.compile(r"page +http://localhost:(\d+)/")


@dataclass(frozen=True)
class Leg:
    """One way: into the gateway, or out of it."""

    seconds: float
    megabytes_per_s: float
    gateway_cpu_s: float
    command_peak_mib: float


@dataclass(frozen=True)
class Result:
    """What was found."""

    bytes: int
    published: Leg
    read: Leg
    gateway_before_mib: float
    gateway_peak_mib: float
    same: bool


def make_file(path: Path, size: int) -> str:
    """Write ``size`` bytes of chance; return their SHA-256."""
    chance, digest = random.Random(7), hashlib.sha256()
    with path.open("wb") as file:
        while size:
            piece = chance.randbytes(min(size, MEBIBYTE))
            digest.update(piece)
            file.write(piece)
            size -= len(piece)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resident(pid: int, which: str) -> float:
    """Return ``VmRSS`` or ``VmHWM``, its peak, of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"the kernel tells no {which}")


@contextlib.contextmanager
def serving(folder: Path, core: int) -> Iterator[tuple[Process, str]]:
    """Run a gateway with default settings, in a folder and at a port of its own; give it and its URL."""
    config = folder / "penstock.yaml"
    config.write_text(json.dumps({"listen": {"port": 0}, "store": {"path": str(folder / "data")}}))
    argv = [sys.executable, "-m", "penstock", "serve", "--config", str(config)]
    with Process("gateway", argv, core=core, log=folder / "log", env=ENV, talks=False) as gateway:
        greeted: re.Match[str] | None = None

        def ready() -> bool:
            nonlocal greeted
            greeted = greeted or GREETING.search(gateway.log_tail())
            return greeted is not None and answers(int(greeted[1]), "/readyz")

        gateway.wait_ready(ready, READY_WITHIN_S)
        assert greeted is not None
        yield gateway, f"http://127.0.0.1:{greeted[1]}"


def run(gateway: Process, core: int, size: int, *command: str) -> Leg:
    """Run a command of ``penstock`` and measure it."""
    cpu, began = gateway.cpu_s(), time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "penstock", *command],
        env={**os.environ, **ENV},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert child.stderr is not None
    said = child.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stderr.close()
    if child.returncode:
        raise BenchError(f"penstock {command[0]} failed: {said.strip()[-400:]}")
    seconds = time.monotonic() - began
    return Leg(seconds, size / 1e6 / seconds, gateway.cpu_s() - cpu, usage.ru_maxrss / 1024)


def measure(folder: Path, size: int, cores: Sequence[int]) -> Result:
    """Move a file of ``size`` bytes in and out."""
    source, target = folder / "source.bin", folder / "target.bin"
    wanted = make_file(source, size)
    with serving(folder, cores[0]) as (gateway, url):
        before, there = resident(gateway.pid, "VmRSS"), ("--url", url)
        published = run(gateway, cores[-1], size, "publish", "--file", str(source), "files/big", *there)
        read = run(gateway, cores[-1], size, "read", "files/big", "--output", str(target), *there)
        peak = resident(gateway.pid, "VmHWM")
    return Result(size, published, read, before, peak, wanted == digest_of(target))


def told(result: Result) -> str:
    """Return the figures as lines."""
    lines = [f"{result.bytes / 1e6:,.0f} MB in one publication, embedded store, default settings"]
    for name, leg in (("publish", result.published), ("read", result.read)):
        lines.append(
            f"{name:8} {leg.seconds:7.1f} s  {leg.megabytes_per_s:6.1f} MB/s"
            f"  gateway CPU {leg.gateway_cpu_s:5.1f} s  the command's peak {leg.command_peak_mib:4.0f} MiB"
        )
    lines.append(
        f"gateway  {result.gateway_before_mib:.0f} MiB before, {result.gateway_peak_mib:.0f} at most"
    )
    lines.append("SHA-256  the same" if result.same else "SHA-256  DIFFERS")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure once, and say what was found; 1 when the file did not come back as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024, metavar="N")
    parser.add_argument(
        "--folder", type=Path, help="where the files and the store go, three times their size"
    )
    parser.add_argument("--json", action="store_true", help="figures for programs")
    options = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="penstock-files-", dir=options.folder) as folder:
        result = measure(Path(folder), options.mebibytes * MEBIBYTE, cores)
    print(json.dumps(asdict(result)) if options.json else told(result))
    return 0 if result.same else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"bench.files: {error}", file=sys.stderr)
        sys.exit(2)
