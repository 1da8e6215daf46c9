"""`make bench-policies`: what all policies together cost a token, against none of them.

Keys, limits, prices, a budget and a content filter with 5,000 words and detectors, all of which concern every
stream of the load; written as a configuration that `bench/run.py` lays upon the gateway's own. What follows
on the command line is handed on to it.
"""

import os
import sys
import tempfile
from pathlib import Path

import yaml

from bench.content_filter import words
from bench.systems import MODELS, ROOT

MANY = 1_000_000_000
WORDS = 5_000


def overlay(folder: Path) -> dict[str, object]:
    """Return the configuration; its word list is written into ``folder``."""
    listed = folder / "words.txt"
    listed.write_text("\n".join(words(WORDS)))
    return {
        "keys": {"bench": "a-key-of-the-benchmark-that-nobody-uses"},
        "anonymous": True,
        "limits": [
            {"by": by, "requests_per_minute": MANY, "tokens_per_minute": MANY, "concurrent": 100_000}
            for by in ("key", "model", "address")
        ],
        "prices": {model: {"input": 1.0, "output": 2.0} for model in MODELS},
        "budgets": [{"usd": 1_000_000, "by": "key", "period": "day"}],
        "filters": {
            "bench": {
                "rules": [
                    {"words_file": str(listed), "action": "mask"},
                    {"detect": ["email", "card", "api_key"], "action": "mask"},
                ]
            }
        },
    }


def main() -> None:
    """Write it, and become the benchmark."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    path = folder / "policies.yaml"
    path.write_text(yaml.safe_dump(overlay(folder)))
    run = [sys.executable, str(ROOT / "bench" / "run.py"), "--overlay", str(path)]
    os.execv(sys.executable, [*run, "--only", "nginx", "penstock", "overlay", *sys.argv[1:]])


if __name__ == "__main__":
    main()
