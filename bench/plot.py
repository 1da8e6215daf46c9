"""Draws a result of the benchmark: `python -m bench.plot result.json picture.png`.

A program of its own because it needs matplotlib (dependency group `bench`) and measuring does not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib import pyplot

from bench.report import Results


def plot(results: Results, path: Path) -> None:
    """Draw CPU per token and latency over the number of streams."""
    cells = [cell for cell in results.cells().values() if not cell.tls]
    colours = {"nginx": "#6b7280", "penstock": "#0f766e", "direct": "#c2a878", "overlay": "#b45309"}
    figure, (cpu, latency) = pyplot.subplots(1, 2, figsize=(10, 4), dpi=150, layout="constrained")
    for system, colour in colours.items():
        mine = sorted((cell for cell in cells if cell.system == system), key=lambda cell: cell.streams)
        if not mine:
            continue
        streams = [cell.streams for cell in mine]
        name = {"direct": "no gateway", "overlay": "penstock, all policies"}.get(system, system)
        if system != "direct":
            low = [cell.cpu_us - min(cell.cpu_us_rounds) for cell in mine]
            high = [max(cell.cpu_us_rounds) - cell.cpu_us for cell in mine]
            cpu.errorbar(
                streams,
                [cell.cpu_us for cell in mine],
                [low, high],
                color=colour,
                marker="o",
                capsize=3,
                label=name,
            )
        p50 = [cell.latency.ms(50) for cell in mine]
        p99 = [cell.latency.ms(99) for cell in mine]
        latency.plot(streams, p99, color=colour, marker="o", label=f"{name}, p99")
        latency.plot(streams, p50, color=colour, marker=".", linestyle=":", label=f"{name}, p50")
    cpu.set(xlabel="streams of 50 tokens a second", ylabel="CPU per relayed token, µs", ylim=(0, None))
    latency.set(xlabel="streams of 50 tokens a second", ylabel="upstream's send to client's read, ms")
    latency.set_yscale("log")
    latency.yaxis.set_major_formatter("{x:g}")
    for axes in (cpu, latency):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    machine = results.machine
    figure.suptitle(f"{machine['cpu']}, one core for the relay, {machine['date'][:10]}", fontsize=9)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    matplotlib.use("Agg")
    plot(Results.from_json(json.loads(options.result.read_text())), options.picture)


if __name__ == "__main__":
    main()
