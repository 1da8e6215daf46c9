"""Both event loops, pools that must end empty, certificates, and the real servers."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
import uvloop

from penstock.upstream.pool import Pool, PoolSettings
from tests.upstream import servers


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Every test here runs under both loops."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


MakePool = Callable[..., Pool]


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    """Makes pools, closes them, and finds that nothing is left."""
    pools: list[Pool] = []

    def make(*, environ: Mapping[str, str] | None = None, clock: Any = None, **settings: Any) -> Pool:
        options = {} if clock is None else {"clock": clock}
        pools.append(Pool(PoolSettings(**settings), environ=environ, **options))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.aclose()
        assert pool.statistics()[:4] == (0, 0, 0, 0)


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    """A pool with settings as they come."""
    return make_pool()


class Certificates(NamedTuple):
    """A certificate authority of the tests; ``file`` is its certificate."""

    authority: trustme.CA
    file: str
    folder: Path

    def context(self, *names: str, **options: Any) -> ssl.SSLContext:
        """Return a server's context with a certificate for ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names, **options).configure_cert(context)
        return context

    def expired(self, *names: str) -> ssl.SSLContext:
        """Return a server's context with a certificate that was good until yesterday."""
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        return self.context(*names, not_before=yesterday - datetime.timedelta(days=1), not_after=yesterday)

    def self_signed(self) -> ssl.SSLContext:
        """Return a server's context with the authority's own certificate."""
        key = self.folder / "authority.pem"
        key.write_bytes(self.authority.private_key_pem.bytes() + self.authority.cert_pem.bytes())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(key)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return Certificates(authority, str(folder / "ca.pem"), folder)


@pytest.fixture(scope="package", autouse=True)
def _system_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The system trusts one authority, which nobody uses: reading a real list takes 16 ms a pool."""
    folder = tmp_path_factory.mktemp("system")
    trustme.CA().cert_pem.write_to_path(folder / "authorities.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "authorities.pem"))
        patch.setenv("SSL_CERT_DIR", str(folder))
        yield


@pytest.fixture(scope="session")
def node() -> Iterator[int]:
    with servers.node() as port:
        yield port


@pytest.fixture(scope="session")
def uvicorn() -> Iterator[int]:
    with servers.uvicorn() as port:
        yield port


FILES = {"text": b"".join(b"line %d\n" % count for count in range(100_000)), "zeros": bytes(8_000_000)}


@pytest.fixture(scope="session")
def nginx(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, node: int
) -> Iterator[servers.Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    leaf = certificates.authority.issue_cert("localhost", "127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(folder / "leaf.pem")
    leaf.private_key_pem.write_to_path(folder / "leaf.key")
    with servers.nginx(folder, FILES, folder / "leaf.pem", folder / "leaf.key", node) as ports:
        yield ports
