"""Autobahn's fuzzing client against the echo application: `make autobahn`.

It needs Python 2.7, for which nothing maintained installs it any more; PYTHON2 names one, or one is looked
for. Every case is run on our own protocol (`direct`), on our parts over ASGI alone (`plain`) and on the
library without us (`library`); it fails when one of ours does worse than the library.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

SUITE = "autobahntestsuite==0.8.2"
MODES = ("library", "plain", "direct")
GOOD = ("OK", "INFORMATIONAL", "NON-STRICT")
"""Which of them it is, is chance in some cases: how fast an error is seen."""

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-autobahn"


def python2() -> str:
    """Return an interpreter, or leave with what is missing."""
    named = os.environ.get("PYTHON2")
    pyenv = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))
    for candidate in (named, *map(str, pyenv), shutil.which("python2.7"), shutil.which("pypy")):
        if candidate and subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
            return candidate
    sys.exit("Autobahn's test suite runs on Python 2.7 only, and there is none here: name one by PYTHON2=…")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit("an echo server did not start")


def good(case: dict) -> bool:
    return case["behavior"] in GOOD and case["behaviorClose"] in GOOD


def main(cases: list[str]) -> None:
    interpreter = python2()
    packages = HOME / "packages"
    if not (packages / "bin" / "wstest").exists():
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run([interpreter, "-m", "pip", "install", "-q", "--target", packages, SUITE], check=True)
        (packages / "zope" / "__init__.py").touch()
    ports = {mode: free_port() for mode in MODES}
    servers = [
        subprocess.Popen([sys.executable, "-m", "tests.conformance.echo", str(port), mode])
        for mode, port in ports.items()
    ]
    reports = Path("build") / "autobahn"
    spec = HOME / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(reports.absolute()),
                "servers": [{"agent": m, "url": f"ws://127.0.0.1:{p}"} for m, p in ports.items()],
                "cases": cases or ["*"],
                # 9: how fast; 12 and 13: compression, which is off.
                "exclude-cases": [] if cases else ["9.*", "12.*", "13.*"],
                "exclude-agent-cases": {},
            }
        )
    )
    try:
        for port in ports.values():
            wait_for(port)
        command = [interpreter, packages / "bin" / "wstest", "-m", "fuzzingclient", "-s", spec]
        with (HOME / "log.txt").open("wb") as log:
            environ = {**os.environ, "PYTHONPATH": str(packages)}
            subprocess.run(command, env=environ, check=True, stdout=log, stderr=log)
    finally:
        for server in servers:
            server.kill()
            server.wait()
    found = json.loads((reports / "index.json").read_text())
    worse = []
    for mode in MODES:
        results = found[mode]
        counts: dict[str, int] = {}
        for case in results.values():
            counts[case["behavior"]] = counts.get(case["behavior"], 0) + 1
        print(f"{mode:8} {len(results)} cases: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
        for name, case in results.items():
            if good(found["library"][name]) and not good(case):
                worse.append(f"{mode} {name}: {case['behavior']}, close {case['behaviorClose']}")
    print("\n".join(worse) or "Nothing is worse than the library alone.")
    print(f"Reports: {reports / 'index.html'}")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main(sys.argv[1:])
