"""The ledger's database: opened by several, refused when it is not ours, private."""

import stat

import pytest
import sqlalchemy as sa

from penstock.ledger.database import Database, LedgerUnavailable, LedgerUnusable
from penstock.ledger.keys import create_key, list_keys
from penstock.ledger.migrations import MIGRATIONS
from penstock.ledger.schema import METADATA
from penstock.types.keys import KeyOrder


def test_what_was_written_is_there_after_it_is_opened_again(url):
    first = Database(url)
    first.open()
    made = first.run(create_key, KeyOrder("app"), 0.0)
    second = Database(url)
    second.open()  # while the first is open, as the command line does beside a gateway
    assert second.run(list_keys) == [made.record]
    first.close()
    second.close()


def test_the_migrations_make_the_tables_that_statements_know(database):
    def tables(connection):
        found = sa.inspect(connection)
        return {
            table.name: (
                {column["name"] for column in found.get_columns(table.name)},
                found.get_pk_constraint(table.name)["constrained_columns"],
            )
            for table in METADATA.tables.values()
        }

    assert database.run(tables) == {
        table.name: ({column.name for column in table.columns}, [column.name for column in table.primary_key])
        for table in METADATA.tables.values()
    }


def test_a_ledger_of_a_later_version_is_left_alone(database, url):
    database.run(lambda connection: connection.execute(sa.text("UPDATE ledger_version SET number = 99")))
    with pytest.raises(LedgerUnusable, match="later version"):
        Database(url).open()


def test_a_migration_that_fails_leaves_nothing(url, monkeypatch):
    def broken(op):
        op.create_table("half", sa.Column("one", sa.Integer))
        raise sa.exc.OperationalError("the disk is full", None, Exception())

    monkeypatch.setattr("penstock.ledger.migrations.MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(LedgerUnavailable):
        Database(url).open()
    monkeypatch.undo()
    database = Database(url)
    database.open()
    assert not database.run(lambda connection: sa.inspect(connection).has_table("half"))
    database.close()


def test_the_file_is_its_owners_alone(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'folder' / 'ledger.sqlite'}")
    database.open()
    database.run(create_key, KeyOrder("app"), 0.0)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "folder").iterdir()} == {0o600}
    database.close()


def test_a_password_is_never_shown():
    database = Database("postgresql://user:secret-password@db.invalid/name")
    assert "secret-password" not in repr(database)
    with pytest.raises(LedgerUnavailable) as unavailable:
        database.open()
    assert "secret-password" not in str(unavailable.value)
    database.close()


@pytest.mark.parametrize("url", ["nonsense", "://", "mysql://x/y"])
def test_what_is_no_url_of_a_ledger_is_refused_at_once(url):
    with pytest.raises(LedgerUnusable):
        Database(url)
