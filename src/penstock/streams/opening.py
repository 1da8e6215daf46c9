"""Opening a data folder: everything that is checked and set right before the store runs.

One blocking function, for the store's thread. Whatever makes the folder unusable is found before
anything in it is changed, and told in a sentence that says what to do; a catalogue that is damaged
or missing is never replaced by an empty one. All it acquires is given back when it fails.
"""

import contextlib
import os
import sqlite3
from typing import NamedTuple

import structlog

from penstock.streams import catalogue, migrations, recovery
from penstock.streams.catalogue import Totals
from penstock.streams.folder import (
    DISK_FULL,
    Durability,
    Folder,
    Reserve,
    StoreUnusable,
    Writer,
    boot_id,
    failure_reason,
)
from penstock.streams.recovery import Recovered

logger = structlog.get_logger(__name__)


class Opened(NamedTuple):
    """What a store runs on. ``roomy`` is False when the disk is too full for the reserve.

    ``secret``: see `Folder.secret`.
    """

    writing: sqlite3.Connection
    reading: sqlite3.Connection
    recovered: Recovered
    held: Totals
    roomy: bool
    secret: bytes


def open_folder(folder: Folder, reserve: Reserve, durability: Durability, now: float) -> Opened:
    """Lock ``folder``, open its catalogue and recover its journal. Raises `StoreUnusable`.

    ``now`` is Unix time in seconds.
    """
    folder.take(now)
    with contextlib.ExitStack() as undo:
        undo.callback(folder.release)
        try:
            opened = _open(folder, reserve, durability, undo)
        except migrations.NewerSchema as error:
            raise StoreUnusable(
                f"{folder.catalogue} was written by a later version of Penstock (schema {error.found}, this"
                f" one knows {error.known}). Start that version, or name another data folder."
            ) from error
        except sqlite3.OperationalError as error:
            raise StoreUnusable(
                f"{folder.catalogue} cannot be used ({error}). Free disk space if there is none left, and see"
                " that this user may write it."
            ) from error
        except (sqlite3.DatabaseError, ValueError) as error:
            raise StoreUnusable(
                f"{folder.catalogue} is damaged, or no catalogue ({error}). Put it back from a copy, or name"
                " another data folder; nothing was changed."
            ) from error
        except OSError as error:
            raise StoreUnusable(
                f"The data folder {folder.path} cannot be used ({error.strerror}: {error.filename})."
            ) from error
        undo.pop_all()
    return opened


def close_folder(folder: Folder, opened: Opened, durability: Durability, *, clean: bool) -> None:
    """Close the catalogue and give the lock up. ``clean``: nothing is left in the journal."""
    with contextlib.ExitStack() as last:
        last.callback(folder.release)
        last.callback(opened.writing.close)
        try:
            if clean and catalogue.empty_wal(opened.writing):  # which syncs it, whatever the durability
                folder.note_writer(Writer(boot_id(), durability, clean=True))
        except (OSError, sqlite3.Error) as error:  # the next start finds out by itself
            logger.warning("store_not_closed_cleanly", error=str(error))


def _open(folder: Folder, reserve: Reserve, durability: Durability, undo: contextlib.ExitStack) -> Opened:
    recovery.check_versions(folder.journal)
    last = folder.last_writer()
    if last is None:
        os.close(os.open(folder.catalogue, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    elif not folder.catalogue.exists() or not folder.catalogue.stat().st_size:
        raise StoreUnusable(
            f"{folder.catalogue} is missing, though the folder was in use. Put it back from a copy, or name"
            " another data folder."
        )
    writing = undo.enter_context(contextlib.closing(catalogue.connect(folder.catalogue)))
    if migrations.check_version(writing) == 0 and last is not None:
        raise StoreUnusable(
            f"{folder.catalogue} is empty, though the folder was in use. Put it back from a copy, or name"
            " another data folder."
        )
    here = boot_id()
    lossy = (
        last is not None
        and not last.clean
        and last.durability != "host"
        and (not here or last.boot_id != here)
    )

    def recover() -> Recovered:
        catalogue.make_writable(writing, durable=durability != "process")
        migrations.migrate(writing)
        recovered = recovery.recover(writing, folder.journal, lossy=lossy)
        folder.note_writer(Writer(here, durability))
        return recovered

    try:
        recovered = recover()
    except (sqlite3.OperationalError, OSError) as error:
        if not _is_full(error):
            raise
        reserve.spend()
        recovered = recover()
    if recovered.frames or recovered.open or recovered.damaged:
        logger.info(
            "store_recovered",
            open=len(recovered.open),
            frames=recovered.frames,
            records=recovered.records,
            damaged=recovered.damaged,
            dropped=recovered.dropped,
            lossy=lossy,
        )
    reading = catalogue.connect_reader(folder.catalogue)
    return Opened(writing, reading, recovered, catalogue.totals(writing), reserve.restore(), folder.secret())


def _is_full(error: sqlite3.OperationalError | OSError) -> bool:
    if isinstance(error, OSError):
        return failure_reason(error) == DISK_FULL
    return error.sqlite_errorcode == sqlite3.SQLITE_FULL
