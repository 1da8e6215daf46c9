"""``make fuzz``: hours of it, by ``ARGS="--minutes 120"``; ``--only sse cursor``, ``--seed 7``.

Inputs that break something are written to build/fuzz, each with what happened; ``--again FILE`` tries one.
Once mended, an input belongs into tests/fuzz/found, which the suite tries.
"""

import argparse
import secrets
import sys
import time
from pathlib import Path

from tests.fuzz.fuzzer import PATIENCE, attempt, search
from tests.fuzz.targets import targets

ROUND = 5.0
"""Seconds for one target before it is the next one's turn."""


def main() -> int:
    """Return 1 when something broke."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--only", nargs="*", default=[], choices=sorted(targets()))
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--again", type=Path)
    given = parser.parse_args()
    known = targets()
    if given.again:
        _, crash = attempt(known[given.again.name.rpartition("-")[0]], given.again.read_bytes())
        print(crash.trace if crash else "Nothing breaks.")
        return int(crash is not None)
    end = time.monotonic() + given.minutes * 60
    chosen = [known[name] for name in given.only or known]
    seed, tried, written = given.seed, 0, 0
    seen: set[str] = set()
    print(f"seed {seed}, {given.minutes:g} minutes, {len(chosen)} parsers", flush=True)
    while time.monotonic() < end:
        for target in chosen:
            until = min(end, time.monotonic() + ROUND)
            fuzzer = search(target, seed, lambda _, until=until: time.monotonic() < until, PATIENCE)
            tried += fuzzer.tried
            for place, crash in fuzzer.crashes.items():
                if place not in seen:
                    seen.add(place)
                    written += 1
                    print(f"{crash.write(given.out)}: {crash.trace.splitlines()[-1]}", flush=True)
        seed += 1
    print(f"{tried} inputs, {written} defects", flush=True)
    return int(bool(written))


if __name__ == "__main__":
    sys.exit(main())
