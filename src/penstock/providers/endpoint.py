"""One server that runs models, as its provider sees it: an address, credentials, headers and a pool.

Owns what every request to it has in common. What is said, and under which path, is the provider's
business; how bytes arrive is `penstock.providers.http`'s. Nothing here prints a credential: not in a
`repr`, not in an error, not even where the server quotes it back.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock import __version__
from penstock.providers.http import HttpSource, ParseError, parse_base_url, redirected
from penstock.providers.keys import ProviderKeys
from penstock.providers.passage import Errand, Passage
from penstock.providers.signing import Signature, Signer
from penstock.types.errors import ClientError, UpstreamError, WireError
from penstock.upstream.http1 import Request, render_head
from penstock.upstream.pool import Pool
from penstock.wire.fitting import Fitting, Rule

MAX_MODELS_BYTES: Final = 8 * 1024 * 1024
"""Of a list of models; aggregators offer hundreds, with a few KiB of description each."""

NO_HEADERS: Final[Mapping[str, str]] = {}

MIN_SECRET_CHARS: Final = 8
"""A header's value that is shorter is no secret worth hiding from an error's text."""


class EndpointSettings(msgspec.Struct, frozen=True):
    """Where a server is and how to be let in.

    ``api_key`` goes as a bearer token; ``api_keys`` are more of them, used in turn. ``headers`` are sent
    with every request and win over all others. ``head_timeout`` is in seconds, from the request to the
    head of the response; None for the pool's own setting. ``unsupported`` is what becomes of what the
    provider cannot be told.
    """

    base_url: str
    api_key: str = ""
    headers: Mapping[str, str] = {}
    head_timeout: float | None = None
    api_keys: tuple[str, ...] = ()
    unsupported: Rule = "drop"

    @property
    def keys(self) -> Sequence[str]:
        """All keys, each once."""
        return list(dict.fromkeys(key for key in (self.api_key, *self.api_keys) if key))

    def __repr__(self) -> str:
        """Show all but the credentials."""
        url = self.base_url.rpartition("@")[2].partition("?")[0]
        key = "set" if self.keys else "none"
        return f"{type(self).__name__}({url!r}, api_key {key}, headers {sorted(self.headers)})"


class Endpoint:
    """See the module's head."""

    def __init__(
        self,
        name: str,
        settings: EndpointSettings,
        pool: Pool,
        parse_error: ParseError,
        *,
        accept: str,
        headers: Mapping[str, str] | None = None,
        key_header: str = "authorization",
        key_prefix: str = "Bearer ",
        secrets: Sequence[str] = (),
        signer: Signer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take ``pool`` over, and close it in the end; ``accept`` is what answers are, ``headers`` are the
        provider's own, and ``secrets`` what is secret in them; a key goes into ``key_header`` behind
        ``key_prefix``, and where there is a ``signer`` none does. Raises `ValueError` for a base URL or a
        header that cannot be used."""
        self._pool = pool
        self._signer = signer
        self._name = name
        self._unsupported = settings.unsupported
        self._origin, self._path = parse_base_url(settings.base_url)
        self._dialect_error = parse_error
        self._head_timeout = settings.head_timeout
        own = {
            "content-type": "application/json",
            "accept": accept,
            # Compressors hold events back to have more to compress.
            "accept-encoding": "identity",
            "user-agent": f"penstock/{__version__}",
        }
        keys = settings.keys
        self._keys = ProviderKeys(keys, clock) if keys else None
        self._key_header = (key_header, key_prefix)
        given = {name.lower(): value for name, value in settings.headers.items()}
        self._own = own | dict(headers or {})
        self._given = given
        self._secrets = tuple(
            value.encode()
            for value in (*keys, *secrets, *settings.headers.values())
            if len(value) >= MIN_SECRET_CHARS
        )
        try:
            for key in keys or ("",):
                render_head(self._request("POST", "/", key=key))
        except ClientError as error:
            raise ValueError(f"The settings of provider {name} cannot be used: {error.message}") from None

    def __repr__(self) -> str:
        """Show the address."""
        return f"<Endpoint {self.url}>"

    @property
    def url(self) -> str:
        """The address; it holds no credential."""
        return f"{self._origin}{self._path}"

    def fitting(self) -> Fitting:
        """Return what notes, of the next request, what this provider cannot be told."""
        return Fitting(self._name, self._unsupported)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> HttpSource:
        """Return a source of the answer to ``body``; nothing is sent yet.

        ``headers`` are of this request: they win over the provider's, and the settings' over them.
        """
        if self._signer is not None:
            signature = self._signer.use()
            source = HttpSource(
                self._pool,
                self._request("POST", path, body, headers),
                self._parse_error,
                head_timeout=self._head_timeout,
                key=signature,
                conceal=self._concealing(signature),
            )
            source.complete = signature.complete
            return source
        key = self._keys.use() if self._keys else None
        request = self._request("POST", path, body, headers, key=key.value if key else "")
        return HttpSource(
            self._pool,
            request,
            self._parse_error,
            head_timeout=self._head_timeout,
            key=key,
            conceal=self._conceal if self._secrets else None,
        )

    def passage(self, errand: Errand) -> Passage:
        """Return ``errand`` on its way, with our credential; nothing is sent yet."""
        request = self._request(errand.method, errand.path, errand.body, errand.headers, key=self._any_key())
        if errand.stream is not None:
            request = msgspec.structs.replace(request, stream=errand.stream, length=errand.length)
        if not errand.body and errand.stream is None:
            without = tuple((name, value) for name, value in request.headers if name != "content-type")
            request = msgspec.structs.replace(request, headers=without)
        return Passage(self._pool, request, self._parse_error)

    async def get(self, path: str) -> Any:
        """Return a small JSON document. Raises `UpstreamError`."""
        return await self._fetch(self._request("GET", path, key=self._any_key()))

    async def ask(self, path: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Any:
        """Return the small JSON document that answers ``body``. Raises `UpstreamError`."""
        return await self._fetch(self._request("POST", path, body, headers, key=self._any_key()))

    async def _fetch(self, request: Request) -> Any:
        if self._signer is None:
            return await self._fetch_once(request, self._conceal)
        signature = self._signer.use()
        try:
            return await self._fetch_once(await signature.complete(request), self._concealing(signature))
        except UpstreamError as error:
            if not signature.failed(error):
                raise
        signature = self._signer.use()
        return await self._fetch_once(await signature.complete(request), self._concealing(signature))

    async def _fetch_once(self, request: Request, conceal: Callable[[str], str]) -> Any:
        response = await self._pool.fetch(request, limit=MAX_MODELS_BYTES)
        if response.status >= 400:
            error = self._parse_error(response.status, response.headers, response.body)
            error.message = conceal(error.message)
            error.args = (error.message,)
            raise error
        if response.status >= 300:
            raise redirected(response.status)
        try:
            return msgspec.json.decode(response.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise WireError("The provider's answer is no JSON.") from None

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()

    def _any_key(self) -> str:
        return self._keys.use().value if self._keys else ""

    def _request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
        *,
        key: str = "",
    ) -> Request:
        name, prefix = self._key_header
        credential = {name: prefix + key} if key else NO_HEADERS
        said = {**self._own, **credential, **headers, **self._given}
        return Request(method, self._origin, self._path + path, tuple(said.items()), body)

    def _conceal(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret.decode(), "***")
        return text

    def _concealing(self, signature: Signature) -> Callable[[str], str]:
        """Return what hides the credentials of ``signature`` as well."""

        def conceal(text: str) -> str:
            if len(signature.secret) >= MIN_SECRET_CHARS:
                text = text.replace(signature.secret, "***")
            return self._conceal(text)

        return conceal

    def _parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return self._dialect_error(status, headers, body)
