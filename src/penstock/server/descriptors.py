"""How many sockets and files the process may have open, and how many of them its clients get.

Without a descriptor everything fails at once and in odd places: a provider is not reached, a stream not
stored. So the limit is raised as far as it may be, and where that is not far enough, clients are turned away
before the others miss anything.
"""

import resource
import sys
from typing import Final

import msgspec
import structlog

from penstock.server.http import HttpSettings

log = structlog.get_logger(__name__)

OTHERS: Final = 64
"""Descriptors of the store, the ledger, the logs and what listens, and some more."""

FEW: Final = 1_000
"""Connections below which it is worth a warning that there are less than the settings allow."""


def affordable(settings: HttpSettings) -> HttpSettings:
    """Return ``settings`` with as many connections as there are descriptors for; says where these are fewer.

    Raises the process's soft limit for that. A connection may need a second one, to its provider; most do
    not at the same time, so a quarter of what there is stays for these.
    """
    wanted = settings.max_connections
    limit = raise_limit(2 * wanted + OTHERS)
    room = share(limit)
    if room >= wanted:
        return settings
    say = log.warning if room < FEW else log.info
    say("few_descriptors", open_files=limit, connections=room, max_connections=wanted)
    return msgspec.structs.replace(settings, max_connections=room)


def share(limit: int) -> int:
    """Return how many of ``limit`` descriptors clients may have."""
    return max(1, limit - max(OTHERS, limit // 4))


def raise_limit(wanted: int) -> int:
    """Raise the soft limit to ``wanted``, or to the hard one if that is lower; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError) as error:  # a sandbox forbids it, or the system's bound is lower
            log.warning("limit_not_raised", open_files=soft, wanted=most, reason=str(error))
        else:
            soft = most
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
