"""Where providers are, in OpenTelemetry's words. Apart from what needs OpenTelemetry, which is optional."""

from typing import NamedTuple


class Place(NamedTuple):
    """Who a provider is (`gen_ai.provider.name`), and where; empty and 0 where it has no address."""

    system: str
    address: str = ""
    port: int = 0
