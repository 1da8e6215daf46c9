"""What tokens cost: by the operator's own table, else by genai-prices for providers that it knows.

A provider is known by the address at which it is reached, since anybody may call one anything; what is
served at one's own address costs what its operator says, or nobody knows. Prices are looked up once for
each provider and model.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

import genai_prices
import msgspec

from penstock.types.events import UsageReported
from penstock.types.usage import USD

PER_TOKEN: Final = USD // 1_000_000
"""Nano-dollars a token, for each dollar a million tokens."""

MAX_KNOWN: Final = 10_000
"""Models whose prices are remembered."""


class Price(msgspec.Struct, frozen=True):
    """US dollars for a million tokens. What is None costs what the rest of its kind does."""

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None

    def cost(self, usage: UsageReported) -> int:
        """Return nano-dollars."""
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        plain = max(0, usage.input_tokens - cached - written)
        per = [
            (plain, self.input),
            (cached, self.input if self.cached is None else self.cached),
            (written, self.input if self.cache_write is None else self.cache_write),
            (usage.output_tokens, self.output),
        ]
        return round(sum(count * Decimal(str(price)) for count, price in per) * PER_TOKEN)


class Rates(NamedTuple):
    """About what one token costs, in nano-dollars: for holding a budget while an answer grows."""

    input: float
    output: float


class Prices:
    """See the module's head."""

    def __init__(self, table: Mapping[str, Price], addresses: Mapping[str, str]) -> None:
        """``table``: by pattern of `provider/model` or of the model alone, the first that fits.
        ``addresses``: base URLs of the providers that may be known, by their name."""
        self._table = tuple(table.items())
        self._addresses = addresses
        self._own: dict[tuple[str, str], Price | None] = {}
        self._rates: dict[tuple[str, str], Rates | None] = {}

    def __repr__(self) -> str:
        """Count what is said."""
        return f"<Prices {len(self._table)} own>"

    def cost(self, provider: str, model: str, usage: UsageReported) -> int | None:
        """Return nano-dollars; None where nobody knows."""
        own = self._of_operator(provider, model)
        if own is not None:
            return own.cost(usage)
        return self._looked_up(provider, model, usage)

    def costs(self, provider_and_model: Sequence[tuple[str, str, UsageReported]]) -> list[int | None]:
        """Return the cost of each."""
        return [self.cost(*one) for one in provider_and_model]

    def rates(self, provider: str, model: str) -> Rates | None:
        """Return about what a token costs; None where nobody knows."""
        key = (provider, model)
        if key not in self._rates:
            if len(self._rates) >= MAX_KNOWN:
                self._rates.clear()
            read = self.cost(provider, model, UsageReported(input_tokens=1_000))
            written = self.cost(provider, model, UsageReported(output_tokens=1_000))
            known = read is not None and written is not None
            self._rates[key] = Rates(read / 1_000, written / 1_000) if known else None  # type: ignore[operator]
        return self._rates[key]

    def _of_operator(self, provider: str, model: str) -> Price | None:
        key = (provider, model)
        if key not in self._own:
            if len(self._own) >= MAX_KNOWN:
                self._own.clear()
            names = (f"{provider}/{model}", model)
            fitting = (price for pattern, price in self._table if any(fnmatchcase(n, pattern) for n in names))
            self._own[key] = next(fitting, None)
        return self._own[key]

    def _looked_up(self, provider: str, model: str, usage: UsageReported) -> int | None:
        address = self._addresses.get(provider)
        if address is None:
            return None
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        counts = genai_prices.Usage(
            input_tokens=max(usage.input_tokens, cached + written),
            output_tokens=usage.output_tokens,
            **({"cache_read_tokens": cached} if cached else {}),
            **({"cache_write_tokens": written} if written else {}),
        )
        try:
            found = genai_prices.calc_price(counts, model_ref=model, provider_api_url=address)
        except (LookupError, ValueError):
            return None
        return round(found.total_price * USD)
