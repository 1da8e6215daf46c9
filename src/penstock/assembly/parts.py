"""What the system is made of: what a reload replaces, and what lasts as long as the process."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from penstock.assembly.providers import Made
from penstock.config import Config
from penstock.gateway.gateway import GatewaySettings
from penstock.gateway.setup import Setup
from penstock.policies.accounting import Accounting
from penstock.policies.api_keys import KeyRing
from penstock.policies.budget import Budget, Budgets
from penstock.policies.content_filter import ContentFilter
from penstock.policies.identities import Identities, TokensOfOthers
from penstock.policies.limits import Limit, Limits
from penstock.policies.policy import Policy
from penstock.policies.prices import Prices
from penstock.policies.rulebook import Rulebook
from penstock.server.context import Face
from penstock.types.keys import KeyRecord
from penstock.types.signals import Observer
from penstock.upstream.pool import Pool

if TYPE_CHECKING:
    from penstock.ledger.ledger import Ledger
    from penstock.policies.moderator import Moderator


class Parts(NamedTuple):
    """What of a configuration can be replaced while the gateway runs; made by `build_parts`."""

    config: Config
    providers: Mapping[str, Made]
    pools: Mapping[str, Pool]
    setup: Setup
    gateway: GatewaySettings
    filters: Mapping[str, tuple[Rulebook, ContentFilter]]
    moderators: "Mapping[str, Moderator]"
    limits: Sequence[Limit]
    budgets: Sequence[Budget]
    prices: Prices
    keys: Sequence[KeyRecord]
    issuers: TokensOfOthers | None
    face: Face


class Lasting(NamedTuple):
    """What stays as long as the process, whatever is reloaded: it counts, or holds what is at rest. ``pools``
    are the connections to the present providers; ``counted`` are the present keys, for figures by key."""

    limits: Limits
    budgets: Budgets
    accounting: Accounting
    ledger: "Ledger"
    ring: KeyRing
    identities: Identities
    pools: dict[str, Pool]
    observe: Observer | None
    tracing: Sequence[Policy]
    counted: set[str]
