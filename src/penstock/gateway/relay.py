"""Requests that are no generations, passed on to a provider as they are: embeddings, audio, images, files.

Owns who answers them, and that the policies are asked as for any call: the model's first target, if its
provider passes requests on; without a model the first provider that does. There is no stream, no retry and
no fallback, and what it cost is not known here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from penstock.gateway.gateway import Gateway
from penstock.gateway.setup import Tenure
from penstock.policies.access import check_model
from penstock.providers.passage import Errand, Passage, PassesOn
from penstock.providers.provider import Target
from penstock.types.calls import Call
from penstock.types.errors import ClientError
from penstock.types.outcomes import UNSTARTED
from penstock.types.principals import Grant

__all__ = ["ROUTE", "Aim", "Errand", "Passage", "Relay"]

ROUTE: Final = "relay"
"""What policies know these calls by."""


class Aim(NamedTuple):
    """Who answers a request that is passed on, by the setup of the moment in which it came."""

    target: Target
    provider: PassesOn
    tenure: Tenure


class Relay:
    """See the module's head."""

    def __init__(self, gateway: Gateway) -> None:
        """``gateway`` knows who answers, and asks the policies."""
        self._gateway = gateway

    def aim(self, model: str, grant: Grant) -> Aim:
        """Return who answers for ``model`` to whom ``grant`` is; for ``""`` anybody who passes requests on.

        Raises `ClientError`: 404 `model_not_found`, 403 `model_not_allowed`, 400 `unsupported_endpoint`.
        """
        tenure = self._gateway.setups.current
        providers = tenure.setup.providers
        if not model:
            for name, provider in providers.items():
                if isinstance(provider, PassesOn):
                    return Aim(Target(name, name, ""), provider, tenure)
            raise _unsupported("No provider of this gateway has this endpoint.")
        check_model(grant, model)
        target = tenure.setup.routing.route(model, grant=grant)[0]
        provider = providers[target.provider]
        if not isinstance(provider, PassesOn):
            raise _unsupported(f"The provider '{target.provider}' has no such endpoint for '{model[:100]}'.")
        return Aim(target, provider, tenure)

    @asynccontextmanager
    async def passing(self, call: Call, aim: Aim, errand: Errand) -> AsyncIterator[Passage]:
        """Ask the policies for ``call``; give ``errand`` on its way, and tell them when it is over. Raises as
        they do."""
        with self._gateway.setups.hold(aim.tenure):
            admission = await self._gateway.admit(call)
            passage = aim.provider.passage(errand)
            try:
                yield passage
            finally:
                passage.abort()
                admission.settle(UNSTARTED)  # no run: nothing is known of what it used


def _unsupported(message: str) -> ClientError:
    what = "It is for models of OpenAI-compatible providers."
    return ClientError(f"{message} {what}", code="unsupported_endpoint")
