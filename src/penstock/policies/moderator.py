"""Moderators outside: an OpenAI-compatible moderation endpoint, or a webhook of the operator's own.

A request is asked about before it is sent, whole (its newest `MAX_INPUT` characters); an answer while it
streams (`penstock.policies.review`). ``fail`` says what holds while the moderator gives no answer: *closed*,
nothing passes that it has not seen; *open*, everything does, and what it says later still counts.

Formats: OpenAI's ``POST /v1/moderations`` (``input`` in, ``results[].flagged``, ``categories`` and
``category_scores`` out); the webhook's is ours and stands in docs/guide/filters.md.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

import httpx
import msgspec
import structlog

from penstock.policies.policy import Admission
from penstock.policies.review import (
    ModerationFailed,
    Passage,
    Review,
    ReviewSettings,
    Verdict,
    report,
    report_failure,
    unavailable,
)
from penstock.types.calls import Call
from penstock.types.decisions import Decision
from penstock.types.errors import ClientError
from penstock.types.requests import GenerationRequest, TextPart
from penstock.types.signals import Observer

log = structlog.get_logger(__name__)

MAX_INPUT: Final = 20_000
"""Characters of a request that are asked about: the newest."""

MAX_ANSWER_BYTES: Final = 1 << 20
MAX_CONNECTIONS: Final = 64
TRIES: Final = 3
"""Within the moderator's time-out, with pauses of `PAUSE` seconds, doubled each time."""

PAUSE: Final = 0.2
MAX_REASON: Final = 200

Kind: TypeAlias = Literal["openai", "webhook"]


class ModeratorSettings(msgspec.Struct, frozen=True):
    """``thresholds``: by category, the score from which it blocks; without, the endpoint's own word counts.
    ``timeout`` in seconds, for all tries together."""

    url: str
    kind: Kind = "openai"
    api_key: str = ""
    secret: str = ""
    model: str = ""
    fail: Literal["closed", "open"] = "closed"
    timeout: float = 5.0
    thresholds: Mapping[str, float] = {}
    models: tuple[str, ...] = ("*",)
    principals: tuple[str, ...] = ("*",)
    input: bool = True
    output: bool = True
    review: ReviewSettings = ReviewSettings()


class _Result(msgspec.Struct):
    flagged: bool
    categories: dict[str, bool] = {}
    category_scores: dict[str, float] = {}


class _Moderation(msgspec.Struct):
    results: list[_Result]


class _Word(msgspec.Struct):
    """What a webhook answers."""

    allow: bool
    reason: str = ""


class Moderator:
    """A policy that reviews as well. Entered by ``open``, left by ``aclose``."""

    def __init__(
        self,
        name: str,
        settings: ModeratorSettings,
        http: Callable[[], httpx.AsyncClient],
        wall: Callable[[], float],
        observe: Observer | None = None,
    ) -> None:
        """``http`` makes the client that asks; ``wall`` gives Unix time, for signatures; ``observe`` is told
        what was blocked, as the log is."""
        self.name = name
        self._observe = observe
        self._settings = settings
        self._make = http
        self._wall = wall
        self._http: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        """Which one; its URL may have a secret in it."""
        return f"<Moderator {self.name} {self._settings.kind} fails {self._settings.fail}>"

    async def open(self) -> None:
        """Be ready to ask."""
        self._http = self._make()

    async def aclose(self) -> None:
        """Let go of the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _concerns(self, call: Call) -> bool:
        settings = self._settings
        return any(fnmatchcase(call.request.model, pattern) for pattern in settings.models) and any(
            fnmatchcase(call.principal.id, pattern) for pattern in settings.principals
        )

    async def admit(self, call: Call) -> Admission:
        """Ask about the request. Raises `ClientError` 400 `content_filter`; `GatewayError` 503
        `moderation_unavailable` where it fails closed."""
        settings = self._settings
        if not self._concerns(call):
            return Admission(call)
        name = f"moderator {self.name}"
        watches = (Decision(name, "watches", "the answer"),) if settings.output else ()
        if not settings.input or not (text := text_of(call.request)):
            return Admission(call, decisions=watches)
        clock = asyncio.get_running_loop().time
        began, said = clock(), "the request"
        try:
            verdict = await self.ask(Passage(text, "", "input", call.request.model, call.request_id))
        except ModerationFailed as failure:
            report_failure(self.name, failure, call.ids)
            if settings.fail == "closed":
                raise unavailable(self.name) from None
            said = "the request unseen: it could not be asked, and is not waited for"
        else:
            if verdict.flagged:
                report(self.name, "input", verdict, call.ids, self._observe)
                message = f"The moderator '{self.name}' does not let something in the request through."
                raise ClientError(message, code="content_filter", param="messages")
        waited = round((clock() - began) * 1000, 3)
        return Admission(call, decisions=(Decision(name, "passed", said, waited), *watches))

    def filter(self, call: Call) -> None:
        """Nothing that could be said at once."""
        return

    def review(self, call: Call) -> Review | None:
        """Return the review that the answer to ``call`` is under; None when there is none."""
        if not (self._settings.output and self._concerns(call)):
            return None
        return Review(
            self.name,
            self.ask,
            self._settings.review,
            model=call.request.model,
            ids=call.ids,
            observe=self._observe,
        )

    # --- asking --------------------------------------------------------------------------------

    async def ask(self, passage: Passage) -> Verdict:
        """Ask. Raises `ModerationFailed`."""
        why = "it did not answer in time"
        try:
            async with asyncio.timeout(self._settings.timeout):
                for number in range(TRIES):
                    if number:
                        await asyncio.sleep(PAUSE * 2 ** (number - 1))
                    try:
                        return await self._ask(passage)
                    except httpx.HTTPError as error:
                        why = type(error).__name__
                    except _TryAgain as again:
                        why = str(again)
        except TimeoutError:
            pass
        raise ModerationFailed(why)

    async def _ask(self, passage: Passage) -> Verdict:
        body, headers = self._question(passage)
        if self._http is None:
            raise ModerationFailed("the gateway is not running")
        async with self._http.stream("POST", self._settings.url, content=body, headers=headers) as response:
            if response.status_code != 200:
                if response.status_code in (408, 429) or response.status_code >= 500:
                    raise _TryAgain(f"it answered {response.status_code}")
                raise ModerationFailed(f"it answered {response.status_code}")
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MAX_ANSWER_BYTES:
                    raise ModerationFailed("its answer is too long")
        try:
            return self._verdict(bytes(data))
        except (msgspec.DecodeError, RecursionError):
            raise ModerationFailed("its answer is not of its kind") from None

    def _question(self, passage: Passage) -> tuple[bytes, dict[str, str]]:
        settings = self._settings
        headers = {"content-type": "application/json"}
        if settings.api_key:
            headers["authorization"] = f"Bearer {settings.api_key}"
        if settings.kind == "openai":
            asked = {"input": passage.context + passage.text}
            if settings.model:
                asked["model"] = settings.model
            return msgspec.json.encode(asked), headers
        body = msgspec.json.encode(
            {
                "text": passage.text,
                "context": passage.context,
                "where": passage.where,
                "model": passage.model,
                "request_id": passage.request_id,
            }
        )
        if settings.secret:
            headers["penstock-signature"] = signature(settings.secret, body, int(self._wall()))
        return body, headers

    def _verdict(self, data: bytes) -> Verdict:
        if self._settings.kind == "webhook":
            word = msgspec.json.decode(data, type=_Word)
            return Verdict(not word.allow, word.reason[:MAX_REASON])
        found: list[str] = []
        flagged = False
        results = msgspec.json.decode(data, type=_Moderation).results
        if not results:
            raise ModerationFailed("its answer has no result")
        for result in results:
            if thresholds := self._settings.thresholds:
                over = [
                    name
                    for name, least in thresholds.items()
                    if result.category_scores.get(name, 0.0) >= least
                ]
                flagged = flagged or bool(over)
                found += over
            else:
                flagged = flagged or result.flagged
                found += [name for name, said in result.categories.items() if said]
        return Verdict(flagged, ",".join(sorted(set(found)))[:MAX_REASON])


class _TryAgain(Exception):
    """The moderator may answer yet."""


def signature(secret: str, body: bytes, now: int) -> str:
    """Return ``t=<Unix time>,v1=<hex HMAC-SHA256 over "<time>.<body>">``, by which a webhook knows us."""
    mac = hmac.new(secret.encode(), b"%d." % now + body, hashlib.sha256)
    return f"t={now},v1={mac.hexdigest()}"


def text_of(request: GenerationRequest) -> str:
    """Return what a request says, its newest `MAX_INPUT` characters."""
    texts: list[str] = []
    for message in request.messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        elif message.content is not None:
            texts += [part.text for part in message.content if type(part) is TextPart]
    return "\n".join(filter(None, texts))[-MAX_INPUT:]
