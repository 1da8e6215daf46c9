"""The store's part of the composition root."""

from pathlib import Path

from penstock.assembly.settings import publication_settings, route_settings
from penstock.config import Config
from penstock.streams.embedded import EmbeddedSettings, EmbeddedStore
from penstock.streams.folder import Durability
from penstock.streams.memory import MemorySettings, MemoryStore
from penstock.streams.split import SplitStore
from penstock.streams.store import Store
from penstock.types.buckets import Buckets


def build_store(config: Config, commits: Buckets | None) -> Store:
    """Return the store, not opened. ``commits`` counts how long its commits take."""
    store = config.store
    memory = MemorySettings(
        max_streams=store.max_streams, max_bytes=min(store.max_bytes, store.max_memory_bytes)
    )
    if store.kind == "memory":
        return MemoryStore(memory)
    kept = {route_settings(config, name).at_rest for name in config.routes.__struct_fields__}
    kept.add(publication_settings(config).at_rest)
    durability: Durability = "process"
    if "host" in kept:
        durability = "mixed" if "process" in kept else "host"
    disk = EmbeddedStore(
        Path(store.path),
        EmbeddedSettings(durability=durability, max_streams=store.max_streams, max_bytes=store.max_bytes),
        commits=commits,
    )
    return SplitStore(disk, MemoryStore(memory))  # a client may want its stream kept in memory alone
