"""Autobahn's fuzzing client against the echo application: `make autobahn`.

It needs Python 2.7: PYTHON2 names one, or one is looked for, or taken from Debian 11, whose packages are
unpacked into a cache and not installed (on Debian and its like, amd64). Every case is run on our own
protocol (`direct`), on our parts over ASGI alone (`plain`) and on the library without us (`library`); it
fails when one of ours does worse than the library. ARGS name cases: `9.*`.
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

RELEASE = "bullseye"
MIRROR = ("Created-By: Packages", "Origin: Debian", "Label: Debian")
"""Which of this machine's package sources is Debian's own archive, as ``apt-get indextargets`` tells them."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = (
    *("python2.7", "python2.7-minimal", "libpython2.7-stdlib", "libpython2.7-minimal"),
    *("libssl1.1", "libffi7", "python-pip-whl", "python-setuptools", "python-pkg-resources"),
)

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-autobahn"


def python2() -> str:
    """Return an interpreter, or leave with what is missing."""
    named = os.environ.get("PYTHON2")
    pyenv = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))
    for candidate in (named, *map(str, pyenv), shutil.which("python2.7"), shutil.which("pypy")):
        if candidate and subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
            return candidate
    if shutil.which("apt-get") and (unpacked := from_debian()):
        return unpacked
    sys.exit("Autobahn's test suite runs on Python 2.7 only, and there is none here: name one by PYTHON2=…")


def from_debian() -> str | None:
    """Return an interpreter out of Debian 11's archive, as far as that can be reached."""
    home = HOME / "debian"
    program, root = home / "python2.7", home / "root"
    if program.exists():
        return str(program)
    for folder in ("lists/partial", "cache/archives/partial"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    sources = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *MIRROR]
    mirrors = subprocess.run(sources, capture_output=True, text=True).stdout.split()
    if not mirrors:
        return None
    (home / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirrors[0]} {RELEASE} main\n")
    options = {
        "Dir::Etc::sourcelist": home / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": home / "lists",
        "Dir::Cache": home / "cache",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    for command in (["update"], ["download", *PACKAGES]):
        if subprocess.run([*apt, *command], cwd=home).returncode:
            return None
    for package in home.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    wheel = next(root.glob("usr/share/python-wheels/pip-*.whl"))
    library = "lib/x86_64-linux-gnu"
    program.write_text(
        f"#!/bin/sh\nexport LD_LIBRARY_PATH={root}/usr/{library}:{root}/{library} PYTHONHOME={root}/usr\n"
        f'PYTHONPATH="$PYTHONPATH:{wheel}" exec {root}/usr/bin/python2.7 "$@"\n'
    )
    program.chmod(0o700)
    return str(program)


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
                # 9: up to 16 MiB a message, which takes minutes; 12 and 13: compression, which is off.
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
