"""Databases for the ledger's tests: SQLite, and a real PostgreSQL that the tests start."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.ledger.database import Database


def binaries() -> Path | None:
    """Return where PostgreSQL's programs are: Debian keeps each version's apart, off the path."""
    if found := shutil.which("postgres"):
        return Path(found).parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL of this test process's own, on a socket in a folder; its URL without a database."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    user = None
    if os.geteuid() == 0:  # which it refuses to run as
        user = next((name for name in ("postgres", "nobody") if _exists(name)), None)
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-", dir="/tmp"))
    if user is not None:
        shutil.chown(folder, user)
    data, name = folder / "data", user or pwd.getpwuid(os.geteuid()).pw_name

    def run(*words: str) -> None:
        subprocess.run(words, check=True, user=user, capture_output=True, timeout=60, env=environ, cwd=folder)

    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=20 -c shared_buffers=1MB"
    try:
        run(str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", name, "--no-sync")
        run(
            str(programs / "pg_ctl"),
            "-D",
            str(data),
            "-w",
            "-t",
            "60",
            "-l",
            f"{folder}/log",
            "-o",
            options,
            "start",
        )
        yield f"postgresql://{name}@/{{}}?host={folder}"
    finally:
        if data.exists():
            run(str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "-t", "60", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """The URL of an empty database of the test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    template = request.getfixturevalue("postgres")
    admin = Database(template.format("template1"))
    name = f"t{abs(hash(request.node.nodeid)):x}"
    engine = admin._engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.close()
    return template.format(name)


@pytest.fixture
def database(url) -> Iterator[Database]:
    """An open database."""
    database = Database(url)
    database.open()
    yield database
    database.close()
