"""The data folder of the embedded store: who holds it, who wrote it last, and what is in reserve.

    lock            held with flock(2) by the one process that may write; says which
    writer.json     the last writer: its boot id, its durability, whether it went away in good order
    reserve         1 MiB that pays for the last entries of streams when the disk is full
    secret          what links to streams are signed with, as long as the folder lives
    journal/        see `penstock.streams.journal`
    catalogue.db    see `penstock.streams.catalogue`

Files are 0600, folders 0700. All calls block: they are for the store's own thread. Whatever keeps
the store from being opened is a `StoreUnusable`, raised before any data was touched.
"""

import contextlib
import errno
import fcntl
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.types.errors import GatewayError

Durability: TypeAlias = Literal["process", "host", "mixed"]
"""What committed entries survive: a killed process; or also a power failure; or as each stream's `at_rest`
says."""

DISK_FULL: Final = "disk_full"
_REASONS: Final = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EFBIG: DISK_FULL,
    errno.EROFS: "read_only",
    errno.ENOBUFS: "catalogue_behind",
}
SECRET_BYTES: Final = 32
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class StoreUnusable(GatewayError):
    """The data folder cannot be used as it is; the message says what to do. Not worth a retry."""

    def __init__(self, message: str) -> None:
        """``message`` is for the operator: it names the folder."""
        super().__init__(message, code="store_unusable", status=503)


class Holder(msgspec.Struct, frozen=True):
    """The process that holds the lock; ``started`` is in Unix seconds."""

    pid: int
    host: str
    started: float


class Writer(msgspec.Struct, frozen=True):
    """A process that wrote. ``clean``: it went away in good order, with all on the disk."""

    boot_id: str
    durability: Durability
    clean: bool = False


class Folder:
    """The data folder at ``path``."""

    def __init__(self, path: Path) -> None:
        """Touches nothing."""
        self.path = path
        self.journal = path / "journal"
        self.catalogue = path / "catalogue.db"
        self._writer = path / "writer.json"
        self._lock = -1

    def take(self, now: float) -> None:
        """Make the folder if there is none, and lock it. Raises `StoreUnusable`."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.journal.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreUnusable(
                f"{error.filename} is no folder. Name a folder for the data that exists or can be made."
            ) from error
        except OSError as error:
            raise StoreUnusable(
                f"The data folder {self.path} cannot be written ({error.strerror})."
                " Make it writable for this user, or name another."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 4096, 0)
            os.close(lock)
            raise StoreUnusable(
                f"The data folder {self.path} is in use by {_describe(holder)}. Stop that process, or name"
                " another folder."
            ) from error
        self._lock = lock
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, msgspec.json.encode(Holder(os.getpid(), os.uname().nodename, now)), 0)
        except OSError as error:  # a full disk: the lock holds all the same, it only names nobody
            if failure_reason(error) != DISK_FULL:
                self.release()
                raise StoreUnusable(
                    f"The data folder {self.path} cannot be written ({error.strerror})."
                ) from error

    def release(self) -> None:
        """Give the lock up."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):  # nobody is named any more; not what the lock rests on
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1

    def last_writer(self) -> Writer | None:
        """Return who wrote last; None in a folder that is new. Raises `StoreUnusable`."""
        try:
            return msgspec.json.decode(self._writer.read_bytes(), type=Writer)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:  # cut short by a power failure: then whatever it was may be lost
            return Writer("", "process")

    def note_writer(self, writer: Writer) -> None:
        """Note who writes from now on. Raises `OSError`."""
        _replace(self._writer, msgspec.json.encode(writer))

    def secret(self) -> bytes:
        """Return the folder's secret, made when it is first asked for; 32 bytes.

        Where it cannot be stored (a full disk) it is another one at the next start.
        """
        path = self.path / "secret"
        with contextlib.suppress(OSError):
            if len(known := path.read_bytes()) == SECRET_BYTES:
                return known
        made = secrets.token_bytes(SECRET_BYTES)
        with contextlib.suppress(OSError):
            _replace(path, made)
        return made


def _replace(path: Path, content: bytes) -> None:
    """Give ``path`` the ``content``, all of it or none. Raises `OSError`."""
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.replace(path)


class Reserve:
    """Disk space set aside, which is given up when the disk is full."""

    def __init__(self, path: Path, size: int) -> None:
        """``size`` is in bytes."""
        self._path = path
        self._size = size

    def spend(self) -> None:
        """Give the space up."""
        with contextlib.suppress(OSError):  # nothing to give up, or nothing to be done about it
            self._path.unlink()

    def restore(self) -> bool:
        """Set the space aside and say whether as much again is free: else the disk is full still."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            if os.fstat(fd).st_size != self._size:
                os.posix_fallocate(fd, 0, 2 * self._size)
                os.ftruncate(fd, self._size)
        except OSError:
            self.spend()
            return False
        finally:
            os.close(fd)
        return True


def boot_id() -> str:
    """Return what is another after each start of the machine; ``""`` where that is not known."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _describe(holder: bytes) -> str:
    try:
        found = msgspec.json.decode(holder, type=Holder)
    except msgspec.MsgspecError:
        return "another process"
    since = datetime.fromtimestamp(found.started, UTC)
    return f"process {found.pid} on {found.host} (since {since:%Y-%m-%d %H:%M:%S} UTC)"


def failure_reason(error: OSError) -> str:
    """Return the word for ``error`` in a `StoreFailure`."""
    return _REASONS.get(error.errno or 0, "io_error")
