"""What the bearer of a credential may ask for: models, routes, and for how long."""

from collections.abc import Callable

from penstock.policies.policy import Admission, EventFilter
from penstock.types.calls import Call
from penstock.types.decisions import Decision
from penstock.types.errors import ClientError
from penstock.types.principals import Grant


class Access:
    """A `Policy`: holds calls against their principal's grant."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """``wall`` is Unix time."""
        self._wall = wall

    async def admit(self, call: Call) -> Admission:
        """Raises `ClientError` 403 `model_not_allowed`, `route_not_allowed`, `preset_not_allowed`."""
        principal, grant = call.principal, call.principal.grant
        if principal.stream:
            raise ClientError("A link starts nothing.", code="invalid_link", status=403)
        if grant.ends_at is not None and self._wall() >= grant.ends_at:
            raise ClientError("This token has expired: get a new one.", code="expired_token", status=401)
        if not grant.allows_route(call.route):
            message = f"Your key may not be used on this route ({call.route})."
            raise ClientError(message, code="route_not_allowed", status=403)
        if grant.preset and call.preset != grant.preset:
            message = f"Your token is for the preset '{grant.preset}': POST /v1/presets/{grant.preset}."
            raise ClientError(message, code="preset_not_allowed", status=403)
        check_model(grant, call.request.model)
        return Admission(call, decisions=_decisions(grant))

    def filter(self, call: Call) -> EventFilter | None:
        """Nothing is filtered."""
        return None


def check_model(grant: Grant, model: str) -> None:
    """Refuse ``model``, be there one of that name or not. Raises `ClientError` 403 `model_not_allowed`."""
    if not grant.reaches_model(model):
        message = f"Your key may not use the model '{model[:100]}'."
        raise ClientError(message, code="model_not_allowed", status=403, param="model")


def _decisions(grant: Grant) -> tuple[Decision, ...]:
    """Return what the grant was held against; nothing for one that allows everything."""
    said = [
        f"{name} {', '.join(values)}" for name in ("models", "routes") if (values := getattr(grant, name))
    ]
    if grant.preset:
        said.append(f"the preset '{grant.preset}' alone")
    return (Decision("access", "passed", f"may use {'; '.join(said)}"),) if said else ()
