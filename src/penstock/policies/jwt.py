"""JSON Web Tokens of others: whose are taken, and who comes with one.

Owned here: which algorithms an issuer's tokens may have (a list of the operator's, never the token's own
word: so neither ``none`` nor a public key taken for an HMAC secret opens anything), what must stand in
them, and what becomes of their claims. Signatures are PyJWT's work. Key sets come by URL, are kept for
``JWKS_TTL`` and fetched again for a key that is not in them, but not more often than every
``JWKS_PAUSE`` seconds, whatever is sent to us.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx
import jwt
import msgspec
import structlog

from penstock.policies.jwt_settings import IssuerSettings
from penstock.types.errors import ClientError, GatewayError
from penstock.types.principals import OF, Principal

log = structlog.get_logger(__name__)

MAX_TOKEN: Final = 8_192
"""Characters of a token; one with many groups has about 2,000."""

MAX_CLAIMS: Final = 100
"""Models that one token may name."""

JWKS_TTL: Final = 600.0
JWKS_STALE: Final = 86_400.0
JWKS_PAUSE: Final = 10.0
"""Seconds: until a key set is fetched again; how long one is good that cannot be; and between two tries."""

JWKS_TIMEOUT: Final = 5.0
MAX_JWKS_BYTES: Final = 256 * 1024
MAX_JWKS_KEYS: Final = 100
"""Bounds of a key set."""


class Issuer:
    """One issuer's tokens."""

    def __init__(
        self,
        settings: IssuerSettings,
        http: Callable[[], httpx.AsyncClient],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """``http`` makes the client that fetches key sets."""
        self.settings = settings
        self._http = http
        self._clock = clock
        self._wall = wall
        self._keys: Mapping[str, Any] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._decoder = jwt.PyJWT()

    async def admit(self, token: str, header: Mapping[str, Any], address: str) -> Principal:
        """Return who comes with ``token``. Raises `ClientError` 401 `invalid_token`, `expired_token`."""
        settings = self.settings
        if header.get("alg") not in settings.algorithms:
            raise invalid("its algorithm is not one that is taken here")
        key = settings.secret or settings.public_key or await self._key(header)
        try:
            claims: dict[str, Any] = self._decoder.decode(
                token,
                key,
                algorithms=list(settings.algorithms),
                audience=list(settings.audience) or None,
                issuer=settings.issuer or None,
                # Times are checked below: by the clock that was passed in.
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": bool(settings.audience),
                    "require": ["exp", settings.principal],
                },
            )
        except jwt.InvalidAudienceError:
            raise invalid("it was made for somebody else") from None
        except jwt.MissingRequiredClaimError as error:
            raise invalid(f"it lacks the claim '{error.claim[:40]}'") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise invalid("its signature or its form is not right") from None
        self._check_times(claims)
        return self._principal(claims, address)

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now, leeway = self._wall(), self.settings.leeway
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        if not all(type(value) in (int, float) and abs(value) < 1e12 for value in times.values()):
            raise invalid("its times are no numbers")
        if times["exp"] <= now - leeway:
            raise ClientError("This token has expired.", code="expired_token", status=401)
        if times.get("nbf", 0) > now + leeway or times.get("iat", 0) > now + leeway:
            raise invalid("it is not valid yet")

    def _principal(self, claims: Mapping[str, Any], address: str) -> Principal:
        settings = self.settings
        subject = claims[settings.principal]
        if (
            not (isinstance(subject, str) and 0 < len(subject) <= 255 and subject.isprintable())
            or OF in subject
        ):
            raise invalid(f"its claim '{settings.principal}' names nobody")
        grant = msgspec.structs.replace(settings.grant, ends_at=claims["exp"] + settings.leeway)
        if settings.models:
            named = claims.get(settings.models)
            models = named.split() if isinstance(named, str) else named
            if not isinstance(models, list) or not 0 < len(models) <= MAX_CLAIMS:
                raise invalid(f"its claim '{settings.models}' names no models")
            if not all(isinstance(model, str) for model in models):
                raise invalid(f"its claim '{settings.models}' names no models")
            grant = msgspec.structs.replace(grant, models=tuple(models))
        team = claims.get(settings.team) if settings.team else ""
        return Principal(
            f"{settings.name}:{subject}",
            team=team[:64] if isinstance(team, str) and team.isprintable() else "",
            admin=bool(settings.admin) and _has(claims.get(settings.admin), settings.admin_value),
            grant=grant,
            address=address,
        )

    # --- key sets ------------------------------------------------------------------------------

    async def _key(self, header: Mapping[str, Any]) -> Any:
        kid = header.get("kid", "")
        if not isinstance(kid, str) or len(kid) > 200:
            raise invalid("its key has no name")
        await self._fetch(JWKS_TTL)
        if self._found(kid) is None:
            await self._fetch(0.0)  # the keys may have been changed since
        found = self._found(kid)
        if found is None:
            if not self._keys:
                raise GatewayError(
                    "The keys of the token's issuer cannot be fetched at the moment. Try again shortly.",
                    code="keys_unavailable",
                    status=503,
                    retryable=True,
                    retry_after=JWKS_PAUSE,
                )
            raise invalid("the key that signed it is not one of its issuer's")
        return found

    def _found(self, kid: str) -> Any:
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetch(self, freshness: float) -> None:
        """Fetch the key set unless that is not wanted yet, or was tried a moment ago."""
        if self._fresh(freshness):
            return
        async with self._fetching:
            if self._fresh(freshness):
                return
            self._tried_at = self._clock()
            try:
                async with (
                    asyncio.timeout(JWKS_TIMEOUT),
                    self._http() as client,
                    client.stream("GET", self.settings.jwks_url) as response,
                ):
                    response.raise_for_status()
                    body = b""
                    async for piece in response.aiter_bytes():
                        body += piece
                        if len(body) > MAX_JWKS_BYTES:
                            raise ValueError("too large")
                self._keys = _read_keys(msgspec.json.decode(body))
                self._fetched_at = self._clock()
            except (httpx.HTTPError, TimeoutError, ValueError, jwt.PyJWTError, msgspec.DecodeError) as error:
                log.warning("jwks_not_fetched", issuer=self.settings.name, error=type(error).__name__)
                if self._clock() - self._fetched_at > JWKS_STALE:
                    self._keys = {}

    def _fresh(self, freshness: float) -> bool:
        now = self._clock()
        return now - self._fetched_at <= freshness or now - self._tried_at <= JWKS_PAUSE


def _read_keys(body: Any) -> Mapping[str, Any]:
    """Return the keys that can verify signatures, by name. Raises `ValueError`, `jwt.PyJWTError`."""
    if not isinstance(body, dict) or not isinstance(body.get("keys"), list):
        raise ValueError("no key set")
    found: dict[str, Any] = {}
    for data in body["keys"][:MAX_JWKS_KEYS]:
        # A symmetric key in a public place is no secret, and one for encryption signs nothing.
        if not isinstance(data, dict) or data.get("kty") == "oct" or data.get("use", "sig") != "sig":
            continue
        try:
            found[str(data.get("kid", ""))] = jwt.PyJWK(data).key
        except jwt.PyJWTError:  # of a kind that is not known here
            continue
    return found


class Issuers:
    """All issuers."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        """Several may share an ``iss``, as long as their algorithms do not."""
        self._issuers = tuple(issuers)

    async def admit(self, token: str, address: str = "") -> Principal:
        """Return who comes with ``token``. Raises `ClientError` 401, `GatewayError` 503."""
        if len(token) > MAX_TOKEN:
            raise invalid("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            # Only to find out whose it would be: nothing is believed before the signature is.
            said = jwt.decode(token, options={"verify_signature": False})
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
            raise invalid("its form is not right") from None
        fitting = [
            issuer
            for issuer in self._issuers
            if issuer.settings.issuer in ("", said.get("iss"))
            and header.get("alg") in issuer.settings.algorithms
        ]
        if not fitting:
            raise invalid("nobody is known here who would have made it so")
        for issuer in fitting[:-1]:
            try:
                return await issuer.admit(token, header, address)
            except ClientError as refusal:
                if refusal.code == "expired_token":
                    raise
        return await fitting[-1].admit(token, header, address)


def invalid(why: str) -> ClientError:
    """Return the refusal of a token."""
    return ClientError(f"This token is not taken: {why}.", code="invalid_token", status=401)


def _has(claim: Any, value: str) -> bool:
    if isinstance(claim, str):
        return claim == value or value in claim.split()
    if isinstance(claim, list):
        return value in claim
    return claim is True and value == "true"
