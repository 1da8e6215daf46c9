"""Alerts of a gateway: a provider breaks, people are told; it is mended, and they are told that."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

import httpx
import pytest
from structlog.testing import capture_logs

from penstock.assembly.system import assemble
from penstock.assembly.telemetry import alert_rules
from penstock.config import AlertRuleConfig, AlertsConfig, BadConfig, Config, StoreConfig, check
from penstock.telemetry.alert_rules import AlertRule, Standing, When
from penstock.telemetry.alert_sending import Message, Messengers
from penstock.telemetry.alert_targets import targets_of
from penstock.telemetry.alerts import Alerts
from penstock.types.usage import USD, Purse
from tests.clients.gateway import PATIENCE, serving, wait_for
from tests.telemetry.receivers import hook
from tests.telemetry.signalling import attempt, began, ended, failed


class Box:
    """A target that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Message] = []

    def send(self, message: Message) -> bool:
        self.got.append(message)
        return True


def watching(*rules: AlertRule) -> tuple[Alerts, Box, list[float]]:
    box = Box()
    alerts, now = watching_for(Messengers({"box": box}), *rules)
    return alerts, box, now


def watching_for(messengers: Messengers, *rules: AlertRule) -> tuple[Alerts, list[float]]:
    now = [1_000.0]
    messengers.open()
    alerts = Alerts(
        rules,
        messengers,
        purses=list,
        disk_used=lambda: None,
        healthy=lambda: True,
        breakers=list,
        host="here",
        clock=lambda: now[0],
    )
    return alerts, now


def test_what_holds_is_told_in_words_and_in_the_log():
    alerts, box, now = watching(AlertRule("errors", "error_rate", 0.1, least=2, after=60, to=("box",)))
    with capture_logs() as logs:
        for _ in range(4):
            alerts(failed())
        alerts.look(Standing())
        assert (alerts.firing, repr(alerts)) == ([], "<Alerts none firing>")
        now[0] += 60
        alerts.look(Standing())
        assert alerts.firing == ["errors"]
        now[0] += 400  # nothing happened since: it is over
        alerts.look(Standing())
        now[0] += 60
        alerts.look(Standing())
    wait_for(lambda: len(box.got) == 2)
    fires, over = box.got
    assert fires.title == "Penstock on here: errors"
    assert fires.body == (
        "4 of 4 answers failed in 5 min (100.0%): 4 × upstream_error at p/m.\n"
        "Rule: error_rate above 0.1, for 1 min."
    )
    assert (over.kind, over.title) == ("recovered", "Penstock on here: errors is over")
    told = [(line["event"], line["log_level"]) for line in logs if line["event"].startswith("alert_")]
    assert ("alert_fires", "warning") in told
    assert ("alert_recovered", "info") in told


FULL = [Purse("key ada", 10 * USD, 9 * USD, 0, None)]

CAUSES = {
    "error_rate": ([failed()] * 20, Standing()),
    "stall_rate": ([attempt("upstream_stalled")] * 20, Standing()),
    "first_chunk": ([began(60.0)] * 20, Standing()),
    "breaker_open": ([], Standing(breakers=["p/m"])),
    "budget": ([], Standing(FULL)),
    "disk": ([], Standing(disk_used=0.95)),
    "store": ([], Standing(healthy=False)),
}
"""What makes each rule fire, by the thresholds that hold where nothing is said. Time, or another standing,
mends it."""

MENDED = Standing([Purse("key ada", 10 * USD, 0, 0, None)], disk_used=0.5)


def test_every_rule_fires_and_recovers_at_a_real_receiver_and_tells_neither_at_once():
    assert set(CAUSES) == set(get_args(When))
    with hook() as web:
        rules = alert_rules(Config(alerts=AlertsConfig({"ops": "json://h"})))
        targets = targets_of({"ops": f"json://127.0.0.1:{web.server_port}/hook"})
        alerts, now = watching_for(Messengers(targets), *rules)

        def told() -> list[str]:
            return sorted(body["title"].partition(": ")[2] for _, body in web.got)

        with capture_logs():
            for rule in rules:
                signals, standing = CAUSES[rule.name]
                web.got.clear()
                for signal in signals:
                    alerts(signal)
                alerts.look(standing)
                now[0] += rule.after - 1
                alerts.look(standing)
                assert alerts.firing == []  # what comes and goes is not told
                now[0] += 1
                alerts.look(standing)
                assert alerts.firing == [rule.name]
                now[0] += rule.window + 60
                alerts.look(MENDED)
                assert alerts.firing == [rule.name]
                now[0] += rule.after
                alerts.look(MENDED)
                assert alerts.firing == []
                wait_for(lambda: len(web.got) == 2, f"{rule.name}: {told()}")
                assert told() == [rule.name, f"{rule.name} is over"]
        alerts._messengers.close()


def test_what_is_below_is_not_told():
    alerts, box, _ = watching(AlertRule("errors", "error_rate", 0.5, least=2, after=0))
    for signal in (failed(), ended()):
        alerts(signal)
    alerts.look(Standing())
    assert alerts.firing == []
    assert not box.got


def test_without_rules_there_are_those_that_suit_everybody():
    rules = alert_rules(Config(alerts=AlertsConfig({"ops": "json://h"})))
    assert {rule.name for rule in rules} == {
        *("error_rate", "stall_rate", "first_chunk", "breaker_open", "budget", "disk", "store"),
    }


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        (AlertRuleConfig("disk", above=90), "above"),
        (AlertRuleConfig("budget", above=-1), "above"),
        (AlertRuleConfig("error_rate", window=1), "window"),
        (AlertRuleConfig("first_chunk", percentile=0), "percentile"),
        (AlertRuleConfig("stall_rate", least=0), "least"),
        (AlertRuleConfig("store", after=-1), "after"),
        (AlertRuleConfig("store", to=("nobody",)), "to[0]"),
    ],
)
def test_rules_that_cannot_be_are_named(rule, where):
    problems = check(Config(alerts=AlertsConfig({"ops": "json://h"}, {"r": rule})))
    assert [problem.where for problem in problems] == [f"alerts.rules.r.{where}"]


def test_an_address_that_is_none_is_a_problem_of_the_configuration():
    config = Config(store=StoreConfig("memory"), alerts=AlertsConfig({"ops": "https://example.com/planted"}))
    with pytest.raises(BadConfig) as caught:
        assemble(config, {})
    (problem,) = caught.value.problems
    assert problem.where == "alerts.send.ops"
    assert "jsons://" in problem.what
    assert "planted" not in problem.what


class _Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        delta = {"index": 0, "delta": choice["message"], "finish_reason": "stop"}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
        good = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        broken = self.server.broken
        body = (json.dumps({"error": {"message": "out of order"}}) if broken else good).encode()
        self.send_response(500 if broken else 200)
        self.send_header("content-type", "application/json" if broken else "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def provider():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Provider) as server:
        server.broken = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_broken_provider_is_told_and_that_it_is_mended(tmp_path):
    ask = {"model": "m", "messages": [{"role": "user", "content": "planted prompt"}]}
    with provider() as broken, hook() as web:
        rule = {"least": 3, "window": 10, "after": 0}
        settings = {
            "providers": {
                "p": {"base_url": f"http://127.0.0.1:{broken.server_port}/v1", "api_key": "k" * 20}
            },
            "models": {"m": [{"provider": "p", "tries": 1}]},
            "breaker": {"cool_down": 0.1, "max_cool_down": 0.1},
            "alerts": {
                "send": {"ops": "json://127.0.0.1:${HOOK_PORT}/${HOOK_SECRET}"},
                "rules": {
                    "errors": {"when": "error_rate", "above": 0.5, **rule},
                    "breaker": {"when": "breaker_open", "after": 0},
                },
            },
        }
        settings["models"]["m"][0]["model"] = "x"
        secret = "planted-hook-secret-0001"
        # What is told of an alert is a warning, which `serving` would not let pass.
        environ = {"HOOK_PORT": str(web.server_port), "HOOK_SECRET": secret}
        with serving(tmp_path / "g", settings, allow=("alert_fires",), **environ) as gateway:

            def asked_until(title: str) -> list[str]:
                def told() -> list[str]:
                    httpx.post(f"{gateway.api}/chat/completions", json=ask, timeout=PATIENCE)
                    titles = [body["title"].partition(": ")[2] for _, body in web.got]
                    return titles if title in titles else []

                return wait_for(told, f"no message '{title}'")

            asked_until("errors")
            asked_until("breaker")
            broken.broken = False
            asked_until("breaker is over")
            asked_until("errors is over")
        log = gateway.log_file.read_text()
    titles = [body["title"].partition(": ")[2] for _, body in web.got]
    assert sorted(titles) == ["breaker", "breaker is over", "errors", "errors is over"]
    assert {path for path, _ in web.got} == {f"/{secret}"}
    assert "upstream_error at p/x" in web.got[titles.index("errors")][1]["message"]
    assert secret not in log
    assert "planted" not in json.dumps([body for _, body in web.got])
