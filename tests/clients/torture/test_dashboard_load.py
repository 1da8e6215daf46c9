"""The dashboard with mixed load and faults behind it: for ten minutes (`make dashboard-load`), or a moment.

What it shows at the end is what the metrics and the ledger counted, it never stopped being live, and the
page has not grown: neither its elements nor its memory. The long run says what the page and its feed cost,
and leaves pictures in build/dashboard-load, to be looked at.
"""

import asyncio
import json
import os
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families as families

from tests.clients.browser import until
from tests.clients.chat import prefer
from tests.clients.gateway import PATIENCE, Gateway, serving, wait_for
from tests.clients.mixed_load import ADMIN, SETTINGS, load

SECONDS = float(os.environ.get("PENSTOCK_DASHBOARD_SECONDS", "3"))
LONG = SECONDS > 60
CLIENTS = 12 if LONG else 4

MAX_ELEMENTS = 9_000
MAX_GROWTH = 8_000_000
"""Bytes that the page's heap may have more at the end than after two minutes: an hour of points, and luck."""

BY = {"authorization": f"Bearer {ADMIN}"}
PICTURES = Path(__file__).parents[3] / "build" / "dashboard-load"

PHASES = """(() => { window.phases = new Set(); const place = document.querySelector('#live');
  const told = () => phases.add(place.dataset.phase);
  new MutationObserver(told).observe(place, {attributes: true}); })()"""


class Cost(NamedTuple):
    """What a page has cost so far, or costs: bytes of heap in use, nodes, seconds its thread was busy."""

    at: float
    heap: float
    nodes: float
    busy: float


class Watched:
    """A page with the browser's own figures of it, and the bytes it was sent."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.bytes = 0
        self._cdp = page.context.new_cdp_session(page)
        self._cdp.on("Network.dataReceived", self._received)
        self._cdp.send("Network.enable")
        self._cdp.send("HeapProfiler.enable")
        self._cdp.send("Performance.enable", {"timeDomain": "threadTicks"})  # CPU, however busy the machine

    def _received(self, told: dict) -> None:
        self.bytes += told["encodedDataLength"] or told["dataLength"]

    def cost(self) -> Cost:
        """Measure, with all that is not in use collected before."""
        self._cdp.send("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in self._cdp.send("Performance.getMetrics")["metrics"]}
        return Cost(time.monotonic(), found["JSHeapUsedSize"], found["Nodes"], found["TaskDuration"])

    @property
    def elements(self) -> int:
        """How many there are."""
        return self.page.evaluate("document.querySelectorAll('*').length")


def opened(new_context, gateway: Gateway, language="en", where="", **options) -> Page:
    """Open the dashboard as an administrator."""
    context = new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
    prefer(context, language=language)
    put = f"sessionStorage.setItem('penstock.key', '{ADMIN}')"
    context.add_init_script(f"if (location.protocol === 'http:') {put}")
    page = context.new_page()
    page.goto(f"{gateway.url}/dashboard{where}")
    until(page, "document.documentElement.dataset.ready")
    expect(page.locator("#live")).to_have_attribute("data-phase", "live")
    return page


def shoot(new_context, gateway: Gateway, name: str) -> None:
    """Leave pictures of how it is at the moment, by day, by night and on a phone."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    phone = {"viewport": {"width": 390, "height": 844}}
    for kind, options in {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "phone": {"color_scheme": "dark", "language": "zh", **phone},
    }.items():
        page = opened(new_context, gateway, **options)
        page.wait_for_timeout(4_000)
        page.screenshot(path=PICTURES / f"{name}-{kind}.png", full_page=True)
        page.context.close()


def going(gateway: Gateway) -> list[str]:
    """Return the streams that go on, as the feed tells them."""
    with httpx.stream("GET", f"{gateway.api}/admin/activity", headers=BY, timeout=PATIENCE) as feed:
        lines = feed.iter_lines()
        while next(lines) != "event: frame":
            pass
        told = next(line for line in lines if line.startswith("data: "))
        return [one["id"] for one in json.loads(told[6:])["streams"]]


def finish(gateway: Gateway) -> None:
    """Cancel what goes on, and wait until nothing does."""

    def nothing_goes_on() -> bool:
        found = going(gateway)
        for stream in found:
            httpx.post(f"{gateway.api}/streams/{stream}/cancel", headers=BY, timeout=PATIENCE)
        return not found

    wait_for(nothing_goes_on, "streams go on")


def counted(gateway: Gateway) -> tuple[Counter[str], float]:
    """Return what `/metrics` says: how many streams ended in each way, and what they cost in dollars."""
    endings: Counter[str] = Counter()
    cost = 0.0
    said = httpx.get(f"{gateway.url}/metrics", headers=BY, timeout=PATIENCE).raise_for_status().text
    for family in families(said):
        for sample in family.samples:
            if sample.name == "penstock_streams_ended_total":
                endings[sample.labels["status"]] += int(sample.value)
            elif sample.name == "penstock_cost_dollars_total":
                cost += sample.value
    return endings, cost


def shown(page: Page, place: str) -> Counter[str]:
    """Return the bars of a list as they stand on the page, summed by the first word of their names."""
    found: Counter[str] = Counter()
    for name, value in page.evaluate(
        f"[...document.querySelectorAll('{place} > .bars:first-of-type li')].map((one) =>"
        " [one.querySelector('.name').textContent, one.querySelector('.value').textContent])"
    ):
        found[name.split(" · ")[0]] += int(re.sub(r"\D", "", value))
    return found


@pytest.mark.timeout(SECONDS + 300)
def test_it_stays_live_true_and_small(new_context, tmp_path):
    with serving(tmp_path / "gateway", SETTINGS) as gateway:
        page = opened(new_context, gateway)
        watched = Watched(page)
        page.evaluate(PHASES)
        asked: list[int] = []
        working = threading.Thread(
            target=lambda: asked.append(asyncio.run(load(gateway.url, SECONDS, CLIENTS)))
        )
        working.start()
        began, most, costs, pictured = time.monotonic(), 0, [watched.cost()], 0
        while working.is_alive():
            page.wait_for_timeout(500)
            most = max(most, watched.elements)
            gone = time.monotonic() - began
            if LONG and gone > 60 * len(costs):
                costs.append(watched.cost())
                print(f"{gone:4.0f} s: heap {costs[-1].heap / 1e6:.1f} MB, {costs[-1].nodes:.0f} nodes")
            if LONG and pictured < 2 and gone > (90, SECONDS - 60)[pictured]:
                pictured += 1
                shoot(new_context, gateway, f"{gone:03.0f}s")
        working.join()
        costs.append(watched.cost())
        first, last = costs[min(2, len(costs) - 1)], costs[-1]
        spent = time.monotonic() - began
        print(
            f"{asked[0]} generations in {SECONDS:.0f} s, at most {most} elements;"
            f" heap {first.heap / 1e6:.1f} -> {last.heap / 1e6:.1f} MB, {last.nodes:.0f} nodes;"
            f" the page is busy {100 * (last.busy - costs[0].busy) / spent:.1f} % of its time,"
            f" the feed has {watched.bytes / spent / 1000:.1f} kB a second"
        )
        assert asked[0] > 0
        assert most < MAX_ELEMENTS
        assert page.evaluate("[...window.phases]") in ([], ["live"])
        if LONG:
            assert last.heap - first.heap < MAX_GROWTH
        finish(gateway)
        endings, cost = counted(gateway)
        wait_for(lambda: shown(page, "#endings") == endings, f"the page shows other endings than {endings}")
        assert endings.total() == asked[0]
        attempts = "document.querySelector('#attempts li').textContent"
        until(page, f"{attempts} === 'first choice{asked[0]:,}'")
        sums = httpx.get(f"{gateway.url}/v1/admin/usage", headers=BY, timeout=PATIENCE).json()["data"]
        assert sum(one["generations"] for one in sums) == asked[0]
        assert sum(one["cost_usd"] for one in sums) == pytest.approx(cost, rel=1e-6)
        said = "document.querySelector('#figures .figure:last-child b').textContent"
        until(page, f"{said} === '${cost:,.2f}'")
        if LONG:
            shoot(new_context, gateway, "after")
        page.close()
