"""How many tokens a request has, without generating anything: asked of its provider, or estimated.

Owns who is asked: the first target of the model, since it would answer. A provider that can count is
asked; for any other the answer is an estimate, and says so. Nothing is stored, and no stream is made. The
policies are asked as for a generation, since a provider is told the prompt: what a filter masks is masked
here, what it refuses is refused, and it counts as a request in limits. It costs nothing.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from penstock.gateway.gateway import Gateway
from penstock.gateway.setup import Setup
from penstock.policies.access import check_model
from penstock.types.calls import Call
from penstock.types.errors import ClientError
from penstock.types.estimates import estimate
from penstock.types.outcomes import ASIDE
from penstock.types.principals import Grant
from penstock.types.requests import GenerationRequest


class Count(NamedTuple):
    """Tokens of a request; ``estimated`` where nobody counted them."""

    tokens: int
    estimated: bool


@runtime_checkable
class CountsTokens(Protocol):
    """A provider that can say how many tokens a request has."""

    async def count_tokens(self, request: GenerationRequest, model: str) -> int:
        """Raises `UpstreamError`, and `ClientError` for what it cannot be asked."""
        ...


class Counter:
    """See the module's head."""

    def __init__(self, gateway: Gateway) -> None:
        """``gateway`` knows who answers, and the names that only providers list."""
        self._gateway = gateway

    async def count(self, call: Call) -> Count:
        """Count for whoever makes ``call``.

        Raises `ClientError` 404 `model_not_found`, 403 `model_not_allowed`, what a policy refuses with, and
        `UpstreamError` where a provider was asked.
        """
        grant = call.principal.grant
        check_model(grant, call.request.model)
        with self._gateway.setups.hold() as tenure:
            admission = await self._gateway.admit(call)
            try:
                return await self._count(admission.call.request, grant, tenure.setup)
            finally:
                admission.settle(ASIDE)

    async def _count(self, request: GenerationRequest, grant: Grant, setup: Setup) -> Count:
        try:
            target = setup.routing.route(request.model)[0]
        except ClientError:
            listed = await self._gateway.models()
            if not any(request.model in (model.id, *model.aliases) for model in listed):
                raise self._gateway.unknown_model(request.model, grant) from None
            return Count(estimate(request), True)  # a name of an Ollama's, which cannot count
        provider = setup.providers[target.provider]
        if isinstance(provider, CountsTokens):
            return Count(await provider.count_tokens(request, target.model), False)
        return Count(estimate(request), True)
