"""`penstock models`."""

import json

from penstock.cli.models import table
from penstock.client.connection import Model


def test_models_come_in_columns_that_cut_can_take_apart(run, at, gateway):
    rows = [line.split("\t") for line in run("models", **at).stdout.splitlines()]
    listed = gateway.get("/v1/models")["data"]
    assert [row[0] for row in rows] == [model["id"] for model in listed]
    assert ["demo-empty", "demo", "Finishes without a word."] in rows


def test_json_is_a_list(run, at):
    models = json.loads(run("models", "--json", **at).stdout)
    assert {"id": "demo-empty", "provider": "demo", "description": "Finishes without a word."} in models


def test_on_a_terminal_there_is_a_table(terminal, at):
    seen = terminal("models", **at)
    seen.shows("demo-error         demo      Reports an error in the middle of its answer.")
    assert seen.ends() == 0


def test_a_server_that_is_no_gateway_is_told_from_one(run, upstream):
    said = run("models", "--url", upstream.url)
    assert said.returncode == 69
    assert "does not answer as a Penstock gateway does" in said.stderr


MODELS = [Model("short", "p", "Says a word. " * 6), Model("模型", "provider", "")]


def test_a_table_fits_its_width_and_counts_wide_characters():
    lines = table(MODELS, 60)
    assert lines[0].startswith("short  p         Says a word.")
    assert lines[1].startswith(" " * 17 + "a word.")
    assert lines[-1] == "模型   provider"
    assert all(len(line) <= 60 for line in lines)


def test_a_narrow_table_puts_what_is_said_below():
    lines = table(MODELS, 40)
    assert lines[0] == "short  (p)"
    assert lines[1].startswith("  Says a word.")
    assert all(len(line) <= 40 for line in lines)


def test_an_empty_list_is_said_to_be_one():
    assert table([], 80) == ["The gateway lists no models."]
