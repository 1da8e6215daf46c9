"""A file that grows and is rotated: its lines in order, each published once, whoever is killed meanwhile.

Where publishing stands is kept in a small file, the *checkpoint*, written before each append: which file,
up to where it is stored, and what is being sent now, under which number of which producer. Whoever comes
after sends that again under the same number, and the gateway knows whether it has it. Nothing here knows
HTTP. The file is looked at ten times a second; rotation is met in both of its forms, a new file under
the old name and a copy whose original is emptied, also where it happened while nobody looked.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from penstock.cli import exits
from penstock.cli.exits import Failure
from penstock.cli.publishing import BATCH, whole_lines

POLL: Final = 0.1
"""Seconds between two looks at a file that had nothing new."""

HEAD: Final = 1024
"""Bytes at the beginning of a file by which it is known again."""

MIN_HEAD: Final = 64
"""Bytes that say enough to take a file for a copy of another; less may begin many logs."""

RECORD: Final = 1024
"""Bytes of a checkpoint: one write, which a killed process has made or not made."""


class Place(msgspec.Struct, frozen=True):
    """A place in a file: which one, by its inode and a digest of its first ``head_size`` bytes."""

    inode: int
    offset: int
    head: str = ""
    head_size: int = 0


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a file is published, and what may be as well: ``pending`` bytes from there on, as ``seq``.

    ``ended``: an end of line follows them that the file does not have.
    """

    producer: str
    epoch: int = 0
    seq: int = 0
    place: Place | None = None
    pending: int = 0
    ended: bool = False


class Store:
    """The file that holds a checkpoint, for one process at a time: a context manager."""

    def __init__(self, path: Path) -> None:
        """It is made when there is none."""
        self.path = path
        self._fd = -1

    def __enter__(self) -> Self:
        """Open and lock it. Raises `Failure`."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.lockf(self._fd, os.F_TLOCK, 0)
        except BlockingIOError:
            self._close()
            message = "This file is being published there already, by another process."
            raise Failure(message, code=exits.FAILED, hint=f"It holds {self.path}.") from None
        except OSError as error:
            self._close()
            message = f"{self.path} cannot be written: {error.strerror}."
            hint = "It keeps how far the file is published; --state names another place for it."
            raise Failure(message, code=exits.CANNOT_WRITE, hint=hint) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it."""
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def load(self) -> Checkpoint | None:
        """Return what is in it; None when it is new. Raises `Failure`."""
        found = os.pread(self._fd, RECORD, 0).strip()
        if not found:
            return None
        try:
            return msgspec.json.decode(found, type=Checkpoint)
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = f"{self.path} is not what penstock publish wrote there."
            hint = "Move it away to publish the file from its start; --state names another place."
            raise Failure(message, code=exits.FAILED, hint=hint) from None

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace what is in it. Raises `Failure`."""
        try:
            os.pwrite(self._fd, msgspec.json.encode(checkpoint).ljust(RECORD), 0)
        except OSError as error:
            message = f"{self.path} cannot be written: {error.strerror}."
            raise Failure(message, code=exits.CANNOT_WRITE) from None


class Batch(NamedTuple):
    """What is to be sent, and where it comes from: ``size`` bytes from ``place`` on."""

    content: bytes
    place: Place
    size: int
    ended: bool


class Followed:
    """The file, from a place on."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """``tell`` hears what a person should know of: sentences."""
        self._path = path
        self._tell = tell
        self._fd = -1
        self._place: Place | None = None
        self._waits = False

    @property
    def place(self) -> Place | None:
        """How far it is; None while there is no file."""
        return self._place

    def close(self) -> None:
        """Close what is open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- where to begin -----------------------------------------------------------------------

    def begin(self, *, at_end: bool) -> None:
        """Begin with the file as it is, or with what is written from now on."""
        if self._open(self._path) and at_end:
            self._move(os.fstat(self._fd).st_size)

    def resume(self, checkpoint: Checkpoint) -> Batch | None:
        """Go on where ``checkpoint`` says; return what may be stored already, if it is still to be had."""
        place = checkpoint.place
        if place is None:
            self.begin(at_end=False)
            return None
        if not self._find(place):
            self._tell(f"{self._path.name} was replaced: what was written to it last may be missing.")
            return None
        if not checkpoint.pending:
            return None
        content = os.pread(self._fd, checkpoint.pending, place.offset)
        if len(content) < checkpoint.pending:
            return None
        return Batch(content + b"\n" * checkpoint.ended, place, checkpoint.pending, checkpoint.ended)

    def _find(self, place: Place) -> bool:
        """Open the file that ``place`` is in, under whatever name it has now, or a copy of it.

        Where there is none, the file that has the name is open instead, at its start, if there is one.
        """
        candidates = [self._path, *reversed(self._rotated())]
        for known in (_is_it, _is_copy):
            for candidate in candidates:
                if self._open(candidate) and known(self._fd, place):
                    self._place = msgspec.structs.replace(place, inode=os.fstat(self._fd).st_ino)
                    return True
        self.close()
        self._place = None
        self._open(self._path)
        return False

    # --- what comes ---------------------------------------------------------------------------

    def take(self) -> Batch | None:
        """Return what is new, in whole lines; None when there is nothing. Raises `Failure`."""
        if self._place is None and not self._open(self._path):
            if not self._waits:
                self._waits = True
                self._tell(f"{self._path} is not there; waiting for it.")
            return None
        self._waits = False
        self._look_whether_emptied()
        if batch := self._read(at_end=False):
            return batch
        if (following := self._next()) is None:
            return None
        if batch := self._read(at_end=True):  # what was written until then
            return batch
        self._open(following)
        return None

    def done(self, batch: Batch) -> None:
        """Go on behind ``batch``."""
        self._move(batch.place.offset + batch.size)

    def _read(self, *, at_end: bool) -> Batch | None:
        place = self._place
        assert place is not None
        data = os.pread(self._fd, BATCH, place.offset)
        size = whole_lines(bytearray(data), at_end=at_end)
        if not size:
            return None
        # A last line without an end must not run into the first of the next file.
        ended = at_end and size == len(data) < BATCH and not data.endswith(b"\n")
        return Batch(data[:size] + b"\n" * ended, place, size, ended)

    def _look_whether_emptied(self) -> None:
        """Where the file was emptied, go on in the copy that was made before, or else at its start."""
        place = self._place
        assert place is not None
        size = os.fstat(self._fd).st_size
        if (size < place.offset or _head(self._fd, place.head_size) != place.head) and not self._find(place):
            self._tell(f"{self._path.name} was emptied; going on at its start.")

    def _next(self) -> Path | None:
        """Return the file that follows on the one that is open, if that will not grow any more."""
        ours = os.fstat(self._fd)
        try:
            current = os.stat(self._path)
        except OSError:
            return None
        if os.path.samestat(current, ours):
            return None
        rotated = self._rotated()
        for index, path in enumerate(rotated):  # oldest first
            if _inode(path) == ours.st_ino and index + 1 < len(rotated):
                return rotated[index + 1]
        # Whoever writes does not write to the old file any more once there is something in the new one.
        return self._path if current.st_size else None

    def _rotated(self) -> list[Path]:
        """Return the files that had this name once, oldest first: ``app.log.2``, ``app.log-20261127``."""
        form = re.compile(re.escape(self._path.name) + r"(?:\.(\d{1,6})|[.-](\d[\d._T-]{5,}))")
        found: list[tuple[int, str, Path]] = []
        try:
            names = os.listdir(self._path.parent)
        except OSError:
            return []
        for name in names:
            if match := form.fullmatch(name):
                number, date = match.groups()
                found.append((-int(number) if number else 0, date or "", self._path.parent / name))
        return [path for _, _, path in sorted(found)]

    def _open(self, path: Path) -> bool:
        """Open ``path`` at its start instead of what is open; False when there is none. Raises `Failure`."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Failure(f"{path} cannot be read: {error.strerror}.", code=exits.NO_INPUT) from None
        self.close()
        self._fd = fd
        status = os.fstat(fd)
        self._place = Place(status.st_ino, 0)
        return True

    def _move(self, offset: int) -> None:
        place = self._place
        assert place is not None
        head, size = place.head, place.head_size
        if size < HEAD and size < offset:
            size = min(HEAD, offset)
            head = _head(self._fd, size)
        self._place = msgspec.structs.replace(place, offset=offset, head=head, head_size=size)


def _head(fd: int, size: int) -> str:
    return hashlib.sha256(os.pread(fd, size, 0)).hexdigest() if size else ""


def _is_it(fd: int, place: Place) -> bool:
    status = os.fstat(fd)
    same = status.st_ino == place.inode
    return same and status.st_size >= place.offset and _head(fd, place.head_size) == place.head


def _is_copy(fd: int, place: Place) -> bool:
    copied = place.head_size >= MIN_HEAD and os.fstat(fd).st_size >= place.offset
    return copied and _head(fd, place.head_size) == place.head


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1
