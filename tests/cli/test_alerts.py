"""`penstock alerts`."""

import json

from tests.telemetry.receivers import hook


def settings(tmp_path, **send: str) -> str:
    path = tmp_path / "penstock.yaml"
    path.write_text(json.dumps({"alerts": {"send": send, "rules": {"slow": {"when": "first_chunk"}}}}))
    return str(path)


def test_a_test_message_is_sent_to_everybody(run, tmp_path):
    with hook() as web:
        good, bad = f"json://127.0.0.1:{web.server_port}/planted-secret", "json://127.0.0.1:1/planted-secret"
        done = run("alerts", "test", "--config", settings(tmp_path, ops=good))
        assert (done.returncode, done.stdout) == (0, "ops: sent\n")
        done = run("alerts", "test", "--config", settings(tmp_path, ops=good, lost=bad))
        assert (done.returncode, done.stdout) == (1, "ops: sent\nlost: not taken\n")
    assert "planted" not in done.stderr
    assert [body["title"].rpartition(": ")[2] for _, body in web.got] == ["a test", "a test"]


def test_an_address_that_is_none_is_told_with_its_line(run, tmp_path):
    path = settings(tmp_path, ops="https://planted.example.com/x")
    done = run("check-config", path)
    assert done.returncode == 78
    assert "penstock.yaml:1: alerts.send.ops: this is no address" in done.stderr
    assert "planted" not in done.stderr.replace(path, "")


def test_rules_are_listed(run, tmp_path):
    done = run("alerts", "rules", "--config", settings(tmp_path, ops="json://127.0.0.1:1"))
    assert done.stdout == "slow\tfirst_chunk above 30\tfor 1 min\tops\n"
