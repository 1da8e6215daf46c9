"""`penstock usage`: a table, CSV and JSON of what the ledger has."""

import csv
import io
import json
import time

import pytest

from penstock.ledger.database import Database
from penstock.ledger.usage import insert_rows
from penstock.types.usage import USD, UsageRow


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    database = Database(f"sqlite:///{folder / 'ledger.sqlite'}")
    database.open()
    now = time.time()
    about = {"principal": "app", "provider": "p", "status": "completed"}
    rows = [
        UsageRow("s_1", 1, now, model="gpt", cost=2 * USD, input_tokens=1_500, output_tokens=20, **about),
        UsageRow("s_2", 1, now, model="=cmd", cost=None, input_tokens=1, estimated=True, **about),
        UsageRow("s_3", 1, now - 40 * 86_400, model="old", cost=1, **about),
    ]
    database.run(insert_rows, rows)
    database.close()
    return {"PENSTOCK_DATA": str(folder)}


def test_a_table_for_people_says_what_is_not_certain(run, data):
    lines = run("usage", **data).stdout.splitlines()
    assert lines[0].split() == ["model", "generations", "attempts", "input", "output", "cost", "(USD)"]
    assert lines[1].split() == ["gpt", "1", "1", "1,500", "20", "2.0000"]
    assert lines[2].split() == ["=cmd", "1", "1", "~1", "~0", "0.0000+?"]
    assert len(lines) == 5


def test_csv_for_spreadsheets_holds_no_formula(run, data):
    rows = list(csv.reader(io.StringIO(run("usage", "--csv", **data).stdout)))
    assert rows[0][0] == "model"
    assert [row[0] for row in rows[1:]] == ["gpt", "'=cmd"]
    assert rows[1][-1] == "2.000000000"


def test_json_for_programs(run, data):
    total = json.loads(run("usage", "--by", "total", "--since", "2020-01-01", "--json", **data).stdout)
    assert (total[0]["generations"], total[0]["cost_usd"]) == (3, 2.000000001)


@pytest.mark.parametrize("words", [["--since", "soon"], ["--by", "nobody"], ["--until", "2026-99-01"]])
def test_what_cannot_be_asked_is_a_usage_error(run, data, words):
    assert run("usage", *words, **data).returncode == 2


def test_where_nothing_was_used_that_is_said(run, data):
    assert (
        run("usage", "--since", "1s", "--team", "none", **data).stdout == "Nothing was used in that time.\n"
    )
