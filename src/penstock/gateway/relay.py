"""Requests that are no generations, passed on to a provider as they are: embeddings, audio, images, files.

Owns who answers them, and that the policies are asked as for any call: the model's first target, if its
provider passes requests on; without a model the first provider that does. There is no stream, no retry and
no fallback, and what it cost is not known here.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from penstock.gateway.gateway import Gateway
from penstock.gateway.router import Routing
from penstock.policies.policy import Admission
from penstock.providers.passage import Errand, Passage, PassesOn
from penstock.providers.provider import Provider, Target
from penstock.types.calls import Call
from penstock.types.errors import ClientError
from penstock.types.outcomes import UNSTARTED

__all__ = ["ROUTE", "Errand", "Passage", "Relay"]

ROUTE: Final = "relay"
"""What policies know these calls by."""


class Relay:
    """See the module's head."""

    def __init__(self, gateway: Gateway, providers: Mapping[str, Provider], routing: Routing) -> None:
        """``gateway`` asks the policies."""
        self._gateway = gateway
        self._providers = providers
        self._routing = routing

    def target(self, model: str) -> Target:
        """Return who answers for ``model``; for ``""`` anybody who passes requests on.

        Raises `ClientError`: 404 `model_not_found`, 400 `unsupported_endpoint`.
        """
        if not model:
            for name, provider in self._providers.items():
                if isinstance(provider, PassesOn):
                    return Target(name, name, "")
            raise _unsupported("No provider of this gateway has this endpoint.")
        target = self._routing.route(model)[0]
        if not isinstance(self._providers[target.provider], PassesOn):
            raise _unsupported(f"The provider '{target.provider}' has no such endpoint for '{model[:100]}'.")
        return target

    @asynccontextmanager
    async def admitted(self, call: Call) -> AsyncIterator[Admission]:
        """Ask the policies for ``call``, and tell them when it is over. Raises as they do."""
        admission = await self._gateway.admit(call)
        try:
            yield admission
        finally:
            admission.settle(UNSTARTED)  # no run: nothing is known of what it used

    def passage(self, target: Target, errand: Errand) -> Passage:
        """Return ``errand`` on its way to ``target``."""
        provider = self._providers[target.provider]
        assert isinstance(provider, PassesOn)
        return provider.passage(errand)


def _unsupported(message: str) -> ClientError:
    what = "It is for models of OpenAI-compatible providers."
    return ClientError(f"{message} {what}", code="unsupported_endpoint")
