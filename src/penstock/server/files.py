"""The pages that ship in the package, read once at start and kept in memory.

So what can be served is fixed, and no path of a request ever meets the file system.
"""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import msgspec

MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}


class File(msgspec.Struct, frozen=True):
    """One file as it is served; ``etag`` is weak, since it is served with gzip as well."""

    body: bytes
    media_type: str
    etag: str


def read_pages() -> Mapping[str, File]:
    """Return every file of ``pages/`` by its path in there, with slashes."""
    return dict(_read(files("penstock.server") / "pages", ""))


def _read(folder: Traversable, prefix: str) -> list[tuple[str, File]]:
    found: list[tuple[str, File]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _read(entry, f"{prefix}{entry.name}/")
        elif media_type := MEDIA_TYPES.get(entry.name.rpartition(".")[2]):
            body = entry.read_bytes()
            etag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
            found.append((prefix + entry.name, File(body, media_type, etag)))
    return found
