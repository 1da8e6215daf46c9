"""From a model's name to the targets that can answer it, in order. Pure and immutable.

The first rule that takes a name wins: configured names, configured patterns, ``provider/model``, names
that a provider lists (where its names count as they are), the route of the rest. So what an operator
wrote beats what was found. What providers list is handed in. A reload builds another `Routing`; runs keep
the one they began with.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

import msgspec

from penstock.gateway.balance import Balance
from penstock.policies.access import check_model
from penstock.providers.provider import Model, Target
from penstock.types.errors import ClientError
from penstock.types.principals import EVERYTHING, Grant
from penstock.types.timers import Timers

MAX_OFFERS: Final = 2_000
"""Names that are offered at once; some aggregators list hundreds each."""

MAX_COMPARED: Final = 250
"""Names that an unknown one is compared with; it takes up to 40 µs each, on the loop."""

MAX_SHOWN: Final = 100
"""Characters of an unknown name that are compared and said back."""


class ModelList(msgspec.Struct, frozen=True):
    """What a provider lists, also by every name and alias."""

    models: tuple[Model, ...] = ()
    names: Mapping[str, Model] = {}

    @classmethod
    def of(cls, models: Sequence[Model]) -> "ModelList":
        """Return the list of ``models``."""
        names = {alias: model for model in models for alias in model.aliases}
        return cls(tuple(models), names | {model.name: model for model in models})

    def find(self, name: str) -> Model | None:
        """Return the model that is called ``name``, or also so."""
        return self.names.get(name)


Lists: TypeAlias = Mapping[str, ModelList]
"""What is known of providers' lists, by the provider's name."""

NO_LISTS: Final[Lists] = {}


class Pattern(msgspec.Struct, frozen=True):
    """A wildcard route: names matching ``pattern`` go to ``targets``.

    A target whose model is ``*`` is asked for the name as it came, less ``strip`` at its front.
    """

    pattern: str
    targets: tuple[Target, ...]
    strip: str = ""

    def matches(self, name: str) -> bool:
        """Say whether this route takes ``name``."""
        return fnmatchcase(name, self.pattern)

    def aimed(self, name: str) -> tuple[Target, ...]:
        """Return the targets for ``name``, which matches."""
        asked = name.removeprefix(self.strip)
        return tuple(
            msgspec.structs.replace(target, model=asked) if target.model == "*" else target
            for target in self.targets
        )


class Offer(msgspec.Struct, frozen=True):
    """A name that can be asked for, and the model of a provider that it means first; ``aliases`` are names
    that mean the same."""

    name: str
    provider: str
    model: str
    aliases: tuple[str, ...] = ()


class Routing(msgspec.Struct, frozen=True):
    """All routes. ``patterns`` come in order, the operator's before those of ``provider/model``.

    The names that the providers in ``listed`` list can be asked for as they are; those of providers in
    ``found``, which no configuration names, are also behind ``provider/``, and nowhere while they are not
    listed. ``rest`` takes what is left. ``unlisted`` are providers that are not asked for their models.
    ``balance`` is how calls are spread over the targets of a configured name, where not in their order;
    ``timers`` and ``thinking`` are those of targets that nobody wrote down; ``hedged`` are names whose
    slow targets get a rival; ``resumed`` are those whose answers are gone on with after a restart,
    ``veiled`` those whose clients see the name that they asked for; patterns among both.
    """

    models: Mapping[str, tuple[Target, ...]]
    patterns: tuple[Pattern, ...] = ()
    default_model: str = ""
    listed: tuple[str, ...] = ()
    found: frozenset[str] = frozenset()
    rest: Pattern | None = None
    unlisted: frozenset[str] = frozenset()
    balance: Mapping[str, Balance] = {}
    timers: Timers = Timers()
    thinking: Timers | None = None
    hedged: frozenset[str] = frozenset()
    resumed: frozenset[str] = frozenset()
    veiled: frozenset[str] = frozenset()

    @property
    def providers(self) -> Sequence[str]:
        """The providers whose lists say something that can be asked for here, or about it."""
        named = [targets[0].provider for targets in self.models.values()]
        wild = [target.provider for pattern in self._wild() for target in pattern.targets[:1]]
        return [name for name in dict.fromkeys([*named, *wild, *self.listed]) if name not in self.unlisted]

    @property
    def targets(self) -> frozenset[str]:
        """The names of all targets that anybody can be sent to."""
        rest = [self.rest] if self.rest is not None else []
        several = [*self.models.values(), *(pattern.targets for pattern in (*self.patterns, *rest))]
        return frozenset(target.name for targets in several for target in targets) | frozenset(self.listed)

    @property
    def rules(self) -> frozenset[str]:
        """All that `rule` returns."""
        return frozenset(self.models) | frozenset(pattern.pattern for pattern in self.patterns)

    @property
    def asked(self) -> Sequence[str]:
        """The providers whose lists decide what a name means."""
        return [name for name in self.listed if name not in self.unlisted]

    def route(self, model: str, lists: Lists = NO_LISTS, grant: Grant = EVERYTHING) -> Sequence[Target]:
        """Return the targets for ``model``, at least one, whoever asks.

        Raises `ClientError` 404 `model_not_found`, with no name that ``grant`` does not show; 403 for a name
        that it does not allow, as if there were such a model.
        """
        targets = self._find(model, lists)
        if not targets:
            check_model(grant, model)
            raise self.unknown(model, lists, grant)
        return targets

    def resumes(self, model: str) -> bool:
        """Say whether an answer of ``model`` that was left open by a restart is gone on with."""
        return self.rule(model) in self.resumed

    def veils(self, model: str) -> bool:
        """Say whether clients see ``model``, which they asked for, and not who answers."""
        return self.rule(model) in self.veiled

    def rule(self, model: str) -> str:
        """Return the configured name or pattern that takes ``model``; empty if none does."""
        if model in self.models:
            return model
        return next((one.pattern for one in self.patterns if one.matches(model)), "")

    def route_configured(self, model: str) -> Sequence[Target]:
        """Return the targets that the configuration gives ``model``, whatever anybody lists; maybe none."""
        if targets := self.models.get(model):
            return targets
        return next((pattern.aimed(model) for pattern in self.patterns if pattern.matches(model)), ())

    def route_listed(self, model: str, lists: Lists) -> Sequence[Target]:
        """Return the target of a name that a provider lists; maybe none."""
        for provider in self.asked:
            found = lists[provider].find(model) if provider in lists else None
            if found is None and provider in self.found and provider in lists:
                prefix, _, rest = model.partition("/")
                found = lists[provider].find(rest) if prefix == provider else None
            if found is not None:
                return (Target(provider, provider, found.name, timers=self.timers, thinking=self.thinking),)
        return ()

    def route_rest(self, model: str) -> Sequence[Target]:
        """Return the targets of names that no other rule takes; maybe none."""
        return self.rest.aimed(model) if self.rest and model else ()

    def offers(self, lists: Lists, limit: int = MAX_OFFERS) -> list[Offer]:
        """Return what can be asked for by name, each once, at most ``limit``.

        A provider's model stands under one name only: as it is where that leads to it, else behind its
        provider's. Configured names stand apart, since they may mean several models.
        """
        named = (Offer(name, targets[0].provider, targets[0].model) for name, targets in self.models.items())
        offers = {offer.name: offer for offer in named}
        shown: set[tuple[str, str]] = set()
        for offer in self._wild_offers(lists):
            if len(offers) >= limit:
                break
            meant = (offer.provider, offer.model)
            if offer.name not in offers and meant not in shown and self._means(offer, lists):
                offers[offer.name] = offer
                shown.add(meant)
        return list(offers.values())[:limit]

    def unknown(self, model: str, lists: Lists, grant: Grant = EVERYTHING) -> ClientError:
        """Return the error for a name that nobody answers to; it names those that are like it, of those that
        ``grant`` shows."""
        offers = self.offers(lists, MAX_COMPARED)
        shows = grant.shows_model
        names = {
            name.lower(): offer.name if shows(offer.name) else name
            for offer in offers
            for name in (offer.name, *offer.aliases)
            if shows(name)
        }
        near = dict.fromkeys(names[name] for name in get_close_matches(model[:MAX_SHOWN].lower(), names))
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        return ClientError(
            f"The model '{model[:MAX_SHOWN]}' is not known here.{hint} GET /v1/models lists what is.",
            code="model_not_found",
            status=404,
            param="model",
        )

    def _find(self, model: str, lists: Lists) -> Sequence[Target]:
        return self.route_configured(model) or self.route_listed(model, lists) or self.route_rest(model)

    def _wild(self) -> Iterator[Pattern]:
        """Yield the routes that hand a name on as it is; those with the shortest names first."""
        hand_on = [pattern for pattern in self.patterns if pattern.targets[0].model == "*"]
        yield from (pattern for pattern in hand_on if not _is_prefix(pattern))
        if self.rest is not None:
            yield self.rest
        yield from (pattern for pattern in hand_on if _is_prefix(pattern))

    def _wild_offers(self, lists: Lists) -> Iterator[Offer]:
        """Yield the names behind wildcards and of lists, better ones first, in no way sorted out."""
        wild = list(self._wild())
        plain = [pattern for pattern in wild if not _is_prefix(pattern)]
        for pattern in plain:
            yield from _behind(pattern, lists)
        for provider in self.asked:
            for model in lists[provider].models if provider in lists else ():
                yield _offer("", provider, model)
        for pattern in wild[len(plain) :]:
            yield from _behind(pattern, lists)
        for provider in self.asked:
            if provider in self.found:
                for model in lists[provider].models if provider in lists else ():
                    yield _offer(f"{provider}/", provider, model)

    def _means(self, offer: Offer, lists: Lists) -> bool:
        """Say whether asking for the name leads where the offer says."""
        name = offer.name
        if name in self.models:
            return False
        for pattern in self.patterns:  # as `route_configured`, without making targets: there are many names
            if pattern.matches(name):
                target = pattern.targets[0]
                model = name.removeprefix(pattern.strip) if target.model == "*" else target.model
                return (target.provider, model) == (offer.provider, offer.model)
        targets = self.route_listed(name, lists) or self.route_rest(name)
        return [(target.provider, target.model) for target in targets[:1]] == [(offer.provider, offer.model)]


def _is_prefix(pattern: Pattern) -> bool:
    return pattern.strip != ""


def _behind(pattern: Pattern, lists: Lists) -> Iterator[Offer]:
    """Yield what the list of the pattern's first provider gives names to."""
    provider = pattern.targets[0].provider
    for model in lists[provider].models if provider in lists else ():
        if pattern.matches(pattern.strip + model.name):
            yield _offer(pattern.strip, provider, model)


def _offer(prefix: str, provider: str, model: Model) -> Offer:
    aliases = tuple(prefix + alias for alias in model.aliases)
    return Offer(prefix + model.name, provider, model.name, aliases)
