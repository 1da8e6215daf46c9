"""Alert rules and dashboard: right by their own tools, about metrics that there are, and seen at work.

A real Prometheus scrapes a gateway whose target breaks and mends: the alert fires, and recovers.
"""

import json
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.clients.gateway import PATIENCE, serving, wait_for

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "penstock.rules.yml"
BOARD = ROOT / "deploy" / "grafana" / "penstock.json"
PAGE = ROOT / "docs" / "guide" / "monitoring.md"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SUFFIXES = re.compile(r"_(bucket|count|sum)$")
NAMES = re.compile(r"\bpenstock_\w+")

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="needs Prometheus")


def promtool(*arguments, cwd=ROOT):
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scraped(gateway):
    """The names of all metrics of a gateway, as queries have them."""
    families = text_string_to_metric_families(httpx.get(f"{gateway.url}/metrics").text)
    return {
        f"{family.name}_total"
        if family.type == "counter"
        else family.name + ("_info" * (family.type == "info"))
        for family in families
    }


class Upstream:
    """A provider at an address of its own, which refuses connections until `mend` is called."""

    def __init__(self):
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                for delta, finish in (({"content": "hi"}, None), ({}, "stop")):
                    choice = {"index": 0, "delta": delta, "finish_reason": finish}
                    chunk = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False)
        self._server.socket.bind(("127.0.0.1", 0))  # taken, and nobody listens
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"

    def mend(self):
        self._server.server_activate()
        self._thread.start()

    def close(self):
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


@contextmanager
def prometheus(folder, config, rules):
    """A real Prometheus; gives its address."""
    (folder / "prometheus.yml").write_text(json.dumps(config))
    (folder / "rules.yml").write_text(rules)
    promtool("check", "config", folder / "prometheus.yml")
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=out,
            stderr=out,
        )
    try:

        def address():
            assert process.poll() is None, log.read_text()
            return re.search(r'"Listening on" address=(\S+)', log.read_text())

        url = "http://" + wait_for(address, "Prometheus listened nowhere")[1]
        wait_for(lambda: httpx.get(f"{url}/-/ready").status_code == 200, "Prometheus was not ready")
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_the_rules_say_what_they_should():
    promtool("check", "rules", RULES)


def test_the_rules_fire_and_are_silent_when_they_should(tmp_path):
    shutil.copy(RULES, tmp_path)
    shutil.copy(Path(__file__).parent / "penstock.test.yml", tmp_path)
    promtool("test", "rules", "penstock.test.yml", cwd=tmp_path)


def test_the_configuration_can_be_used(tmp_path):
    for file in RULES.parent.iterdir():
        shutil.copy(file, tmp_path)
    key = tmp_path / "penstock.key"
    key.write_text("a key")
    config = tmp_path / "prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus/penstock.key", str(key)))
    assert "15 rules" in promtool("check", "config", config)


def test_a_target_that_breaks_and_mends_is_seen_by_a_real_prometheus(tmp_path):
    upstream = Upstream()
    settings = {
        "providers": {"near": {"base_url": upstream.url}},
        "models": {"m": [{"provider": "near", "model": "m", "tries": 1}]},
        "breaker": {"failures": 1, "cool_down": 0.1, "max_cool_down": 0.1},
    }
    # As it is deployed, but for the times: nobody waits for minutes here.
    rules = re.sub(r"for: \d+m", "for: 0s", RULES.read_text())
    try:
        with serving(tmp_path / "gateway", settings) as gateway:

            def ask():
                return httpx.post(
                    f"{gateway.url}/v1/chat/completions", json=CHAT, timeout=PATIENCE
                ).status_code

            config = {
                "global": {
                    "scrape_interval": "500ms",
                    "scrape_timeout": "400ms",
                    "evaluation_interval": "500ms",
                },
                "rule_files": ["rules.yml"],
                "scrape_configs": [
                    {
                        "job_name": "penstock",
                        "static_configs": [{"targets": [f"127.0.0.1:{gateway.port}"]}],
                    }
                ],
            }
            with prometheus(tmp_path, config, rules) as url:

                def query(text):
                    answer = httpx.get(f"{url}/api/v1/query", params={"query": text}).json()
                    return answer["data"]["result"]

                def firing():
                    alerts = httpx.get(f"{url}/api/v1/alerts").json()["data"]["alerts"]
                    return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

                wait_for(lambda: query('up{job="penstock"} == 1'), "the gateway was not scraped")
                assert "PenstockBreakerOpen" not in firing()
                assert ask() == 502
                wait_for(lambda: "PenstockBreakerOpen" in firing(), "no alert fired")
                failed = query('penstock_attempt_failures_total{code="upstream_unreachable"}')
                assert failed[0]["metric"]["target"] == "near/m"
                upstream.mend()
                wait_for(lambda: ask() == 200, "the target did not mend")
                wait_for(lambda: "PenstockBreakerOpen" not in firing(), "the alert did not recover")
                _queries_can_be_asked(query)
    finally:
        upstream.close()


def _queries_can_be_asked(query):
    """Every query of the board is one that Prometheus understands; most have something to show by now."""
    shown = [bool(query(text)) for text in board_queries()]
    assert sum(shown) > len(shown) // 2


# --- the board, the page, and the metrics that there are -------------------------------------------


def board_queries():
    board = json.loads(BOARD.read_text())
    raw = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    raw += [annotation["expr"] for annotation in board["annotations"]["list"]]
    values = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*", "$model": ".*", "$target": ".*"}
    return [re.sub(r"\$\w+", lambda found: values[found[0]], text) for text in raw]


def test_the_board_is_one_that_grafana_takes():
    board = json.loads(BOARD.read_text())
    panels = board["panels"]
    assert board["uid"] == "penstock"
    assert board["schemaVersion"] >= 36
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["targets"]
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs)
    named = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", BOARD.read_text())) <= named


def test_the_board_the_rules_and_the_page_speak_of_metrics_that_there_are(tmp_path):
    with serving(tmp_path, {"telemetry": {"metrics": {"by_key": True}}}) as gateway:
        there = scraped(gateway)
    ours = {name for name in there if name.startswith("penstock_")}
    for file in (BOARD, RULES):
        used = {SUFFIXES.sub("", name) for name in NAMES.findall(file.read_text())}
        assert used <= ours, file.name
    assert set(NAMES.findall(PAGE.read_text())) == ours
