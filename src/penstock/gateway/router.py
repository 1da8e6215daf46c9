"""From a model's name to the targets that can answer it, in order. Pure and immutable.

A reload builds another `Routing`; runs keep the one they began with.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from penstock.providers.provider import Target
from penstock.types.errors import ClientError


class Pattern(msgspec.Struct, frozen=True):
    """A wildcard route: names matching ``pattern`` go to ``targets``.

    A target whose model is ``*`` is asked for the name as it came, less ``strip`` at its front.
    """

    pattern: str
    targets: tuple[Target, ...]
    strip: str = ""


class Routing(msgspec.Struct, frozen=True):
    """Names first, then patterns in order."""

    models: Mapping[str, tuple[Target, ...]]
    patterns: tuple[Pattern, ...] = ()
    default_model: str = ""

    def route(self, model: str) -> Sequence[Target]:
        """Return the targets for ``model``, at least one; raises `ClientError` 404 `model_not_found`."""
        if targets := self.models.get(model):
            return targets
        for pattern in self.patterns:
            if fnmatchcase(model, pattern.pattern):
                asked = model.removeprefix(pattern.strip)
                return tuple(
                    msgspec.structs.replace(target, model=asked) if target.model == "*" else target
                    for target in pattern.targets
                )
        raise ClientError(
            f"The model '{model[:200]}' is not known here. GET /v1/models lists what is.",
            code="model_not_found",
            status=404,
            param="model",
        )
