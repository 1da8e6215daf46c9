"""A gateway in a process of its own, for what is tested across a network that breaks."""

from tests.clients.conftest import gateway, relay, upstream

__all__ = ["gateway", "relay", "upstream"]
