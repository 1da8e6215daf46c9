"""What is said of an issuer of JSON Web Tokens: apart from `penstock.policies.jwt`, so that reading a
configuration loads no cryptography."""

from typing import Final

import msgspec

from penstock.types.principals import Grant

SYMMETRIC: Final = frozenset({"HS256", "HS384", "HS512"})
ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


class IssuerSettings(msgspec.Struct, frozen=True):
    """One issuer. One of ``secret`` (HS), ``public_key`` (PEM) and ``jwks_url``.

    ``principal``, ``team``, ``models`` and ``admin`` name claims; a principal is called
    ``<name>:<claim>``. ``admin_value`` is what the claim ``admin`` must be, or have among others.
    """

    name: str
    algorithms: tuple[str, ...]
    issuer: str = ""
    audience: tuple[str, ...] = ()
    secret: str = ""
    public_key: str = ""
    jwks_url: str = ""
    leeway: float = 30.0
    principal: str = "sub"
    team: str = ""
    models: str = ""
    admin: str = ""
    admin_value: str = "penstock-admin"
    grant: Grant = Grant()

    def __repr__(self) -> str:
        """Without the secret."""
        return f"IssuerSettings({self.name}, {self.issuer}, {self.algorithms})"


def looks_like_one(credential: str) -> bool:
    """Say whether ``credential`` has a token's form."""
    return credential.startswith("eyJ") and credential.count(".") == 2
