"""Penstock: a streaming gateway for language models whose answers are durable streams.

What is public for Python programs stands in `__all__`, and is imported when it is asked for: the command
line starts in half the time without. `__init__.pyi` tells type checkers what it is.
"""

from pkgutil import resolve_name

__version__ = "0.1.0"

__all__ = ["BadConfig", "Config", "Generation", "Penstock", "PenstockError", "__version__"]

_HOMES = {
    "BadConfig": "penstock.config",
    "Config": "penstock.config",
    "Generation": "penstock.embedding",
    "Penstock": "penstock.embedding",
    "PenstockError": "penstock.types.errors",
}


def __getattr__(name: str) -> object:
    """Import a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve_name(f"{_HOMES[name]}:{name}")


def __dir__() -> list[str]:
    """List what is public."""
    return __all__
