"""Baidu ERNIE by the first version of Qianfan's API; its second is a profile (`penstock.providers.profiles`).

Owns the paths under its address, the endpoints that its models' names stand for, and its way of being let in:
a key and a secret buy an access token, which goes along in the URL, is kept until it ends, and is replaced at
once when it is refused. What is said is `penstock.wire.ernie`'s; the address and how bytes arrive are
`penstock.providers.endpoint`'s.

Source: qianfan (Python, 0.4.12), resources/auth and resources/llm/chat_completion.py.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from penstock.providers.endpoint import Endpoint, EndpointSettings
from penstock.providers.provider import Conversation, Model
from penstock.providers.tokens import Tokens, TokenSigner
from penstock.types.errors import PenstockError, WireError
from penstock.types.requests import GenerationRequest
from penstock.upstream.http1 import Request
from penstock.upstream.pool import Pool
from penstock.wire.ernie import ErnieDecoder, TokenRefused, parse_error, render_request
from penstock.wire.provider_errors import find_problem, upstream_error

BASE_URL: Final = "https://aip.baidubce.com"
CHAT_PATH: Final = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat"
TOKEN_PATH: Final = "/oauth/2.0/token"

LIFE: Final = 2_592_000.0
"""Seconds that a token lives whose life is not said: 30 days."""

MIN_LIFE: Final = 60.0

ENDPOINTS: Final[Mapping[str, str]] = {
    "ernie-4.0-8k": "completions_pro",
    "ernie-3.5-8k": "completions",
    "ernie-speed-8k": "ernie_speed",
    "ernie-lite-8k-0922": "eb-instant",
    "ernie-lite-8k-0308": "ernie-lite-8k",
    "ernie-character-8k": "ernie-char-8k",
    "ernie-character-fiction-8k": "ernie-char-fiction-8k",
    "ernie-functions-8k": "ernie-func-8k",
    "ernie-function-8k": "ernie-func-8k",
    "meta-llama-3-8b": "llama_3_8b",
    "meta-llama-3-70b": "llama_3_70b",
    "yi-34b-chat": "yi_34b_chat",
    "mixtral-8x7b-instruct": "mixtral_8x7b_instruct",
}
"""By a model's name in small letters; every other model's endpoint is its name in small letters."""


class ErnieSettings(EndpointSettings, frozen=True):
    """As `EndpointSettings`; ``api_key`` and ``secret_key`` together buy a token."""

    secret_key: str = ""


class ErnieProvider:
    """One application of Qianfan's."""

    def __init__(
        self, name: str, settings: ErnieSettings, pool: Pool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take ``pool`` over, and close it in the end. Raises `ValueError` for a base URL or a header that
        cannot be used."""
        self.name = name
        self._pair = (settings.api_key, settings.secret_key)
        bare = EndpointSettings(settings.base_url, headers=settings.headers, unsupported=settings.unsupported)
        self._door = Endpoint(name, bare, pool, parse_error, accept="application/json", secrets=self._pair)
        self._tokens = Tokens(self._fetch, clock)
        self._endpoint = Endpoint(
            name,
            bare,
            pool,
            parse_error,
            accept="text/event-stream",
            secrets=self._pair,
            signer=TokenSigner(self._tokens, clock, _add_token, _refuses),
        )

    def __repr__(self) -> str:
        """Show the name and the address."""
        return f"<ErnieProvider {self.name} {self._endpoint.url}>"

    def converse(self, request: GenerationRequest, model: str) -> Conversation:
        """Render ``request`` for ``model``. Raises `ClientError` if ERNIE cannot do it."""
        fitting = self._endpoint.fitting()
        body = render_request(request, fitting)
        known = model.lower()
        source = self._endpoint.post(f"{CHAT_PATH}/{quote(ENDPOINTS.get(known, known), safe='')}", body)
        return Conversation(source, ErnieDecoder(), fitting.dropped)

    async def models(self) -> Sequence[Model]:
        """Nothing: this version has no list."""
        return ()

    async def aclose(self) -> None:
        """Close the pool."""
        await self._endpoint.aclose()

    async def _fetch(self) -> tuple[str, float]:
        key, secret = self._pair
        asked = {"grant_type": "client_credentials", "client_id": key, "client_secret": secret}
        answer = await self._door.ask(f"{TOKEN_PATH}?{urlencode(asked)}", b"")
        match answer:
            case {"access_token": str(token)} if token:
                life = answer.get("expires_in")
                return token, max(life, MIN_LIFE) if type(life) in (int, float) else LIFE
        if (problem := find_problem(answer)) is not None:
            raise upstream_error(problem)
        raise WireError("The provider's access token has an unknown form.")


def _add_token(request: Request, token: str) -> Request:
    target = f"{request.target}?{urlencode({'access_token': token})}"
    return msgspec.structs.replace(request, target=target)


def _refuses(error: PenstockError) -> bool:
    return isinstance(error, TokenRefused)
