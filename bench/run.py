"""`make bench`: what a token costs through the gateway, beside nginx relaying the same bytes.

Starts upstream, system and load generator as processes of their own, on fixed cores; measures the systems in
turn within one run (A B A B: what the machine does to one, it does to the other); refuses figures that rest
on lost tokens or on a load that was itself too slow. bench/README.md tells what each figure means.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, by `make bench`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trustme
import yaml

from bench.histogram import Histogram
from bench.load import CLIENTS
from bench.processes import BenchError, CoreTime, Process, get
from bench.report import MAX_OTHERS_SHARE, IdleMemory, Results, Window, table
from bench.systems import ROOT, SYSTEMS, Lab, Running, start_upstream

STREAMS = (100, 500, 700, 1000)
TLS_STREAMS = (500,)
IDLE_STREAMS = 1000
IDLE_SETTLE_S = 3.0
RATE = 50.0
RAMP_S = 2.0
WARMUP_S = 1.5
TRIES = 3  # of a window during which somebody else used the cores
QUIET_S = 3.0
QUIET_TRIES = 20
FILES = 16384


def sleep_until(when_ns: int) -> None:
    time.sleep(max(0.0, (when_ns - time.monotonic_ns()) / 1e9))


class Harness:
    """Measures one system at a time against one upstream."""

    def __init__(self, lab: Lab, upstream: Process, *, seconds: float, profile: Path | None) -> None:
        self._lab = lab
        self._upstream = upstream
        self._seconds = seconds
        self._profile = profile

    def _load(self, running: Running, streams: int, *more: str) -> Process:
        argv = [sys.executable, "-m", "bench.load", running.url, "--streams", str(streams)]
        argv += ["--rate", str(self._lab.rate), "--client", running.client]
        argv += ["--model", running.model, *more]
        return self._lab.start("load", argv, core=self._lab.load_core, talks=True)

    def _warm_up(self, running: Running) -> None:
        """Let a system load what it loads at its first requests; that is no stream's memory."""
        with self._load(running, 10, "--ramp", "0.2", "--warmup", "0.1", "--seconds", "0.2") as load:
            load.read_json()
            result = load.read_json()
            if result["completed"] != 10:
                raise BenchError(f"the warm-up failed: {result['failures']}")

    def _stats(self, *, reset: bool = False) -> dict[str, Any]:
        _, body = get(self._lab.upstream_port, "/stats?reset=1" if reset else "/stats")
        stats = json.loads(body)
        assert isinstance(stats, dict)
        return stats

    def window(self, system: str, streams: int, *, tls: bool, number: int) -> Window:
        """Measure a window, again where somebody else was using the cores."""
        for _ in range(TRIES - 1):
            window = self._window(system, streams, tls=tls, number=number)
            if not window.disturbed:
                return window
            print(f"  … again: others used {window.others_share:.0%} of a core", flush=True)
            self._wait_quiet()
        return self._window(system, streams, tls=tls, number=number)

    def _wait_quiet(self) -> None:
        """Wait until both cores were idle for a moment; not for ever, since a machine may never be."""
        cores = (self._lab.system_core, self._lab.load_core)
        for _ in range(QUIET_TRIES):
            before = [CoreTime.read(core).busy for core in cores]
            time.sleep(QUIET_S)
            after = [CoreTime.read(core).busy for core in cores]
            if (
                max(end - start for start, end in zip(before, after, strict=True))
                < QUIET_S * MAX_OTHERS_SHARE
            ):
                return

    def _window(self, system: str, streams: int, *, tls: bool, number: int) -> Window:
        lab, upstream = self._lab, self._upstream
        with SYSTEMS[system](lab, tls=tls) as running:
            self._warm_up(running)
            process = running.process
            pss_before = process.pss() if process else 0
            more = ["--ramp", str(RAMP_S), "--warmup", str(WARMUP_S), "--seconds", str(self._seconds)]
            with self._load(running, streams, *more) as load, contextlib.ExitStack() as profiler:
                plan = load.read_json()
                sleep_until(plan["window_start_ns"] - 200_000_000)
                pss_start = process.pss() if process else 0
                measured = [load, upstream, *([process] if process else [])]
                sleep_until(plan["window_start_ns"])
                before = self._sample(measured)
                self._stats(reset=True)
                if self._profile and process:
                    profiler.enter_context(self._start_profile(process))
                sleep_until(plan["window_end_ns"])
                after = self._sample(measured)
                stats = self._stats()
                pss_end = process.pss() if process else 0
                result = load.read_json()
        seconds = after.at - before.at
        used = [end - start for start, end in zip(before.cpu_s, after.cpu_s, strict=True)]
        load_s, upstream_s, system_s = used[0], used[1], sum(used[2:])
        shared = lab.system_core == lab.load_core
        others = [
            after.cores[lab.system_core].busy - before.cores[lab.system_core].busy - system_s,
            after.cores[lab.load_core].busy - before.cores[lab.load_core].busy - load_s - upstream_s,
        ]
        if shared:
            others = [others[0] - load_s - upstream_s]
        others += [after.cores[core].stolen - before.cores[core].stolen for core in after.cores]
        return Window(
            system=system,
            streams=streams,
            tls=tls,
            round=number,
            seconds=seconds,
            tokens=result["window_tokens"],
            reads=result["window_reads"],
            cpu_s=system_s,
            latency=Histogram.from_json(result["latency"]),
            first_chunk=Histogram.from_json(result["first_chunk"]),
            last_late_median=result["last_token_late"]["median"] or 0.0,
            last_late_max=result["last_token_late"]["max"] or 0.0,
            pss_before=pss_before,
            pss_start=pss_start,
            pss_end=pss_end,
            load_share=load_s / seconds,
            upstream_share=upstream_s / seconds,
            send_late_p99_ms=stats["lateness_ms"]["p99"],
            others_share=max(0.0, *others) / seconds,
            losses=tuple(losses(result)),
        )

    @dataclasses.dataclass(frozen=True)
    class _Sample:
        at: float
        cpu_s: list[float]
        cores: dict[int, CoreTime]

    def _sample(self, processes: list[Process]) -> _Sample:
        cores = {self._lab.system_core, self._lab.load_core}
        return self._Sample(
            time.monotonic(),
            [process.cpu_s() for process in processes],
            {core: CoreTime.read(core) for core in cores},
        )

    def _start_profile(self, process: Process) -> Process:
        assert self._profile is not None
        binary = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if binary is None:
            raise BenchError("--profile needs py-spy (pip install py-spy)")
        argv = [binary, "record", "--pid", str(process.pid), "--output", str(self._profile), "--rate", "250"]
        argv += ["--nonblocking", "--duration", str(max(1, int(self._seconds) - 1))]
        return self._lab.start("profile", argv, core=self._lab.load_core)

    def idle_memory(self, system: str, *, tls: bool) -> IdleMemory:
        """Open silent streams on a fresh process and see by how much it grew."""
        with SYSTEMS[system](self._lab, tls=tls) as running:
            assert running.process is not None
            self._warm_up(running)
            before = running.process.pss()
            more = ["--model", "bench-idle", "--hold", str(IDLE_SETTLE_S + 2), "--ramp", "3"]
            with self._load(running, IDLE_STREAMS, *more) as load:
                held = load.read_json()
                if held["held"] != IDLE_STREAMS or held["failures"]:
                    raise BenchError(f"only {held['held']} idle streams began: {held['failures']}")
                time.sleep(IDLE_SETTLE_S)
                after = running.process.pss()
                still_open = load.read_json()["still_open"]
                if still_open != IDLE_STREAMS:
                    raise BenchError(f"{IDLE_STREAMS - still_open} idle streams were closed")
        return IdleMemory(system, tls, IDLE_STREAMS, (after - before) / IDLE_STREAMS)


def losses(result: dict[str, Any]) -> list[str]:
    """Return what the load generator says went wrong with its streams."""
    found = [f"{count} × {reason}" for reason, count in result["failures"].items()]
    if result["completed"] != result["streams"]:
        found.append(f"only {result['completed']} of {result['streams']} streams completed")
    if (missing := result["tokens_expected"] - result["tokens_received"]) != 0:
        found.append(f"{abs(missing)} tokens {'lost' if missing > 0 else 'too many'}")
    if result["tokens_out_of_order"]:
        found.append(f"{result['tokens_out_of_order']} tokens out of order")
    return found


def _said(*argv: str) -> str:
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, timeout=10)
    except OSError:
        return ""
    return (ended.stdout + ended.stderr).strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_machine(lab: Lab) -> dict[str, Any]:
    """Return what one must know to compare figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    packages = ("penstock", "uvloop", "httptools", "uvicorn", "starlette", "msgspec")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "system_core": lab.system_core,
        "load_core": lab.load_core,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "nginx": _said(shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx", "-v"),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "changed": bool(_said("git", "status", "--porcelain", "--", "src")),
        "store_on": _said("stat", "--file-system", "--format=%T", str(lab.folder)),
    }


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine, with its key, and the authority that signed it."""
    authority = trustme.CA()
    certificate, root = folder / "upstream.pem", folder / "authority.pem"
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(root)
    return certificate, root


def choose_cores() -> tuple[int, int]:
    """Return the system's core and the load's; the same one, and a word about it, where there is no other."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        print("Only one core: load and system disturb each other; take ratios, not latencies, from this run.")
    return cores[0], cores[1 % len(cores)]


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        raise BenchError(f"the limit of open files is {hard}; {FILES} are needed (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))


def measure(harness: Harness, results: Results, options: argparse.Namespace) -> None:
    """Run every window and memory measurement asked for; print each as it comes."""
    systems: list[str] = options.only
    jobs = [(streams, False) for streams in options.streams or STREAMS] if "plain" in options.parts else []
    if "tls" in options.parts:
        jobs += [(streams, True) for streams in options.streams or TLS_STREAMS]
    for streams, tls in jobs:
        for number in range(1, options.rounds + 1):
            for system in systems:
                if system == "direct" and (tls or number > 1):
                    continue  # the baseline: the load generator speaks no TLS
                if tls and system.startswith("from-"):
                    continue  # these providers are plain
                window = harness.window(system, streams, tls=tls, number=number)
                results.windows.append(window)
                cost = f"{window.cpu_s / window.tokens * 1e6:6.2f} µs/token" if window.tokens else "no tokens"
                print(
                    f"{streams:>5} streams{' TLS' if tls else ''}  {system:<9} round {number}: {cost}, "
                    f"p50 {window.latency.ms(50):.2f} ms, p99 {window.latency.ms(99):.2f} ms, "
                    f"load {window.load_share:.0%}, upstream {window.upstream_share:.0%}, "
                    f"others {window.others_share:.0%}"
                    + "".join(f"\n        refused: {objection}" for objection in window.objections()),
                    flush=True,
                )
    if "memory" in options.parts:
        for tls in (False, True):
            for system in systems:
                if system in ("nginx", "penstock"):
                    memory = harness.idle_memory(system, tls=tls)
                    results.idle.append(memory)
                    print(
                        f"{memory.streams:>5} idle{' TLS' if tls else ''}  {system:<9} "
                        f"{memory.bytes_per_stream / 1024:.1f} KB/stream",
                        flush=True,
                    )


def save(results: Results, folder: Path, *, publish: bool) -> None:
    """Write the figures and the plot; the plot also into the docs when asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results.machine['date'].replace(':', '').replace('+0000', 'Z')}.json"
    path.write_text(json.dumps(results.to_json(), ensure_ascii=False) + "\n")
    print(f"\nwritten: {path}")
    if _version("matplotlib") is None:
        print("no plot: matplotlib is not installed (dependency group `bench`)")
        return
    picture = path.with_suffix(".png")
    subprocess.run([sys.executable, "-m", "bench.plot", str(path), str(picture)], check=True, cwd=ROOT)
    if publish:
        shutil.copyfile(picture, ROOT / "docs" / "bench.png")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 streams, one round, 4 s: for a first look")
    parser.add_argument(
        "--only", nargs="+", choices=list(SYSTEMS), metavar="SYSTEM", help=" | ".join(SYSTEMS)
    )
    parser.add_argument("--parts", nargs="+", choices=("plain", "tls", "memory"), help="default: all three")
    parser.add_argument("--tls", action="store_true", help="the same as --parts tls")
    parser.add_argument("--streams", nargs="+", type=int, help="default: 100 500 700 1000, over TLS 500")
    parser.add_argument("--seconds", type=float, help="length of a window, default 8")
    parser.add_argument("--rounds", type=int, help="windows of each system at each number, default 2")
    parser.add_argument("--rate", type=float, default=RATE, help="tokens a second of each stream")
    parser.add_argument("--store", choices=("embedded", "memory"), default="embedded")
    parser.add_argument("--route", choices=CLIENTS, default="chat", help="the gateway's route")
    parser.add_argument("--overlay", type=Path, help="YAML laid upon the gateway's configuration: `overlay`")
    parser.add_argument(
        "--profile", type=Path, metavar="SVG", help="py-spy's picture of the system; no verdicts"
    )
    parser.add_argument("--base-port", type=int, default=19001, help="this port and the next two are used")
    parser.add_argument("--folder", type=Path, help="where the store and logs go, default a temporary one")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--publish", action="store_true", help="also replace docs/bench.png")
    options = parser.parse_args()
    options.seconds = options.seconds or (4.0 if options.quick else 8.0)
    options.rounds = options.rounds or (1 if options.quick else 2)
    if options.quick and options.streams is None:
        options.streams = [500]
    options.only = options.only or ["direct", "nginx", "penstock", *(["overlay"] if options.overlay else [])]
    options.parts = ["tls"] if options.tls else options.parts or ["plain", "tls", "memory"]
    return options


def run(options: argparse.Namespace, folder: Path) -> Results:
    raise_file_limit()
    certificate, authority = make_certificate(folder)
    system_core, load_core = choose_cores()
    os.sched_setaffinity(0, {load_core})
    lab = Lab(
        folder=folder,
        base_port=options.base_port,
        system_core=system_core,
        load_core=load_core,
        store=options.store,
        route=options.route,
        rate=options.rate,
        certificate=certificate,
        authority=authority,
        overlay=yaml.safe_load(options.overlay.read_text()) if options.overlay else {},
    )
    told = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
    results = Results(describe_machine(lab), told)
    with start_upstream(lab) as upstream:
        harness = Harness(lab, upstream, seconds=options.seconds, profile=options.profile)
        measure(harness, results, options)
    return results


def main() -> int:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # children are stopped
    with contextlib.ExitStack() as stack:
        folder = options.folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        try:
            results = run(options, folder)
        except BenchError as error:
            print(f"Nothing to report: {error}", file=sys.stderr)
            return 2
    print(f"\n{table(results)}")
    if options.profile:
        return 0
    save(results, options.out, publish=options.publish)
    return 3 if results.refusals() else 0


if __name__ == "__main__":
    sys.exit(main())
