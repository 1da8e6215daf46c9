"""JSON Web Tokens: whose are taken, and that no forged, swapped, stretched or strange one is."""

import base64
import hashlib
import hmac
import json

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from penstock.policies.jwt import JWKS_PAUSE, JWKS_STALE, JWKS_TTL, MAX_TOKEN, Issuer, Issuers
from penstock.policies.jwt_settings import IssuerSettings
from penstock.types.errors import ClientError, GatewayError, PenstockError

NOW = 1_800_000_000.0
SECRET = "a secret of thirty-two bytes, or more"
KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS = {"iss": "https://id.example", "aud": "penstock", "sub": "alice", "exp": NOW + 60}


def pem(key) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def settings(algorithm="RS256", **more):
    key = {"secret": SECRET} if algorithm.startswith("HS") else {"public_key": pem(KEYS[algorithm])}
    said = {"issuer": "https://id.example", "audience": ("penstock",), **key, **more}
    return IssuerSettings("corp", (algorithm,), **said)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def issuers(*said, http=None, clock=None):
    made = [Issuer(one, http or httpx.AsyncClient, clock=clock or Clock(), wall=lambda: NOW) for one in said]
    return Issuers(made)


async def refusal(taking, token) -> str:
    with pytest.raises(PenstockError) as refused:
        await taking.admit(token)
    return refused.value.code


def encode(part) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def sign(claims=CLAIMS, algorithm="RS256", key=None, **headers):
    key = key or (SECRET if algorithm.startswith("HS") else KEYS[algorithm])
    return jwt.encode(claims, key, algorithm, headers=headers)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
async def test_a_good_token_is_its_subject(algorithm):
    principal = await issuers(settings(algorithm)).admit(sign(algorithm=algorithm), "10.0.0.1")
    assert (principal.id, principal.address, principal.admin) == ("corp:alice", "10.0.0.1", False)


async def test_claims_become_team_models_and_administrator():
    said = settings(team="team", models="models", admin="roles")
    claims = {**CLAIMS, "team": "research", "models": ["gpt-*", "demo"], "roles": ["x", "penstock-admin"]}
    principal = await issuers(said).admit(sign(claims))
    assert (principal.team, principal.grant.models, principal.admin) == ("research", ("gpt-*", "demo"), True)
    principal = await issuers(said).admit(sign({**claims, "models": "a b", "roles": "x"}))
    assert (principal.grant.models, principal.admin) == (("a", "b"), False)


def hmac_signed_with_the_public_key():
    said = f"{encode({'alg': 'HS256', 'typ': 'JWT'})}.{encode(CLAIMS)}"
    mac = hmac.digest(pem(KEYS["RS256"]).encode(), said.encode(), hashlib.sha256)
    return f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def tampered(name, value):
    head, _, signature = sign().split(".")
    return f"{head}.{encode({**CLAIMS, name: value})}.{signature}"


FORGED = {
    "no algorithm": f"{encode({'alg': 'none'})}.{encode(CLAIMS)}.",
    "no algorithm, in capitals": f"{encode({'alg': 'NONE'})}.{encode(CLAIMS)}.",
    "no signature": sign().rpartition(".")[0] + ".",
    "a public key as a secret": hmac_signed_with_the_public_key(),
    "another's key": sign(key=OTHER_RSA),
    "another algorithm": sign(algorithm="ES256"),
    "another subject": tampered("sub", "bob"),
    "another time": tampered("exp", NOW + 1e6),
    "a signature cut short": sign()[:-4],
    "two tokens in one": sign() + "." + sign(),
    "no JSON": "eyJ.eyJ.eyJ",
    "numbers for text": sign({**CLAIMS, "sub": "x"}).replace(".", "..", 1),
    "critical extensions": sign(crit=["exp"]),
    "an own key": sign(jwk={"kty": "oct", "k": "AAAA"}, key=OTHER_RSA),
    "a key elsewhere": sign(jku="https://evil.example/keys", key=OTHER_RSA),
    "too long": sign({**CLAIMS, "more": "x" * MAX_TOKEN}),
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
async def test_no_forged_token_is_taken(token):
    assert await refusal(issuers(settings()), token) == "invalid_token"


BAD_CLAIMS = {
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "somebody else"},
    "no audience": {"aud": None},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject of another's": {"sub": "web-app/alice"},
    "a subject with a line end": {"sub": "alice\r\nx-admin: 1"},
    "a subject that is none": {"sub": 17},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "tomorrow"},
    "an end that never comes": {"exp": 1e300},
    "a truth for an end": {"exp": True},
    "not yet": {"nbf": NOW + 31},
    "made tomorrow": {"iat": NOW + 86_400},
    "models that are none": {"models": 5},
    "models without any": {"models": []},
    "a model that is none": {"models": [None]},
}


@pytest.mark.parametrize("changes", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
async def test_no_token_with_claims_that_do_not_fit_is_taken(changes):
    claims = {k: v for k, v in {"models": ["a"], **CLAIMS, **changes}.items() if v is not None}
    assert await refusal(issuers(settings(models="models")), sign(claims)) == "invalid_token"


async def test_clocks_may_differ_by_the_leeway_and_no_more():
    taking = issuers(settings(leeway=30))
    assert (await taking.admit(sign({**CLAIMS, "exp": NOW - 29}))).id == "corp:alice"
    assert (await taking.admit(sign({**CLAIMS, "nbf": NOW + 29}))).id == "corp:alice"
    assert await refusal(taking, sign({**CLAIMS, "exp": NOW - 31})) == "expired_token"


async def test_of_two_issuers_each_takes_its_own():
    second = IssuerSettings("other", ("HS256",), issuer="https://other.example", secret=SECRET)
    taking = issuers(settings(), second)
    assert (await taking.admit(sign())).id == "corp:alice"
    theirs = {**CLAIMS, "iss": "https://other.example"}
    assert (await taking.admit(sign(theirs, "HS256"))).id == "other:alice"
    assert await refusal(taking, sign({**CLAIMS}, "HS256")) == "invalid_token"
    assert await refusal(taking, sign(theirs, "RS256")) == "invalid_token"


# --- key sets ------------------------------------------------------------------------------------------


class KeySet:
    """An issuer's server, over a real client: what it serves can change and fail."""

    def __init__(self, **keys):
        self.keys, self.fetched, self.status, self.extra = keys, 0, 200, []

    def __call__(self):
        return httpx.AsyncClient(transport=httpx.MockTransport(self._serve))

    def _serve(self, request):
        self.fetched += 1
        if self.status != 200:
            return httpx.Response(self.status)
        algorithm = jwt.algorithms.RSAAlgorithm
        found = [
            {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}
            for kid, key in self.keys.items()
        ]
        return httpx.Response(200, json={"keys": [*self.extra, *found]})


def by_url(keys, clock):
    said = IssuerSettings(
        "corp",
        ("RS256",),
        issuer="https://id.example",
        audience=("penstock",),
        jwks_url="https://id.example/keys",
    )
    return issuers(said, http=keys, clock=clock)


@pytest.fixture
def clock():
    return Clock()


async def test_a_key_set_is_fetched_once_and_kept(clock):
    keys = KeySet(one=KEYS["RS256"])
    taking = by_url(keys, clock)
    for _ in range(3):
        assert (await taking.admit(sign(kid="one"))).id == "corp:alice"
    assert keys.fetched == 1
    clock.now += JWKS_TTL + 1
    await taking.admit(sign(kid="one"))
    assert keys.fetched == 2


async def test_a_key_that_is_new_is_fetched_and_one_that_is_gone_is_no_longer_taken(clock):
    keys = KeySet(one=KEYS["RS256"])
    taking = by_url(keys, clock)
    await taking.admit(sign(kid="one"))
    keys.keys = {"two": OTHER_RSA}
    clock.now += JWKS_PAUSE + 1
    assert (await taking.admit(sign(kid="two", key=OTHER_RSA))).id == "corp:alice"
    assert await refusal(taking, sign(kid="one")) == "invalid_token"


async def test_made_up_keys_do_not_make_us_fetch_without_end(clock):
    keys = KeySet(one=KEYS["RS256"])
    taking = by_url(keys, clock)
    for number in range(50):
        assert await refusal(taking, sign(kid=f"made up {number}")) == "invalid_token"
    assert keys.fetched == 1


async def test_while_the_issuer_is_away_its_keys_are_good_for_a_day(clock):
    keys = KeySet(one=KEYS["RS256"])
    taking = by_url(keys, clock)
    await taking.admit(sign(kid="one"))
    keys.status = 500
    clock.now += JWKS_TTL + 1
    assert (await taking.admit(sign(kid="one"))).id == "corp:alice"
    clock.now += JWKS_STALE
    with pytest.raises(GatewayError) as unavailable:
        await taking.admit(sign(kid="one"))
    assert (unavailable.value.code, unavailable.value.retryable) == ("keys_unavailable", True)


async def test_a_set_with_strange_keys_gives_those_that_are_not(clock):
    keys = KeySet(one=KEYS["RS256"])
    secret = base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()
    keys.extra = [17, {"kty": "oct", "k": secret, "kid": "s"}, {"kty": "new"}, {"use": "enc"}]
    taking = by_url(keys, clock)
    assert (await taking.admit(sign(kid="one"))).id == "corp:alice"
    clock.now += JWKS_PAUSE + 1
    with pytest.raises(ClientError):
        await taking.admit(sign(algorithm="HS256", kid="s"))
