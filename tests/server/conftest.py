"""A whole gateway for tests: assembled as the command line does it, on a free port of this process."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import msgspec
import pytest

from penstock.assembly.settings import serving
from penstock.assembly.system import System, assemble
from penstock.config import Config, Listen, ProviderConfig, StoreConfig
from penstock.server.serving import Server, listen


@dataclass
class Running:
    """A gateway that serves."""

    system: System
    server: Server
    port: int
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def config(**more) -> Config:
    """The default configuration, in memory, with an embedded model that does not dawdle."""
    base = Config(
        listen=Listen(port=0, drain=2.0, last_words=0.0),
        store=StoreConfig(kind="memory"),
        providers={"demo": ProviderConfig(kind="scripted", speed=0)},
        default_model="demo-echo",
    )
    return msgspec.convert(msgspec.to_builtins(base) | msgspec.to_builtins(more), Config)


@asynccontextmanager
async def running(system: System, settings: Config, **http):
    """Serve ``system`` until the context ends. ``http``: bounds of connections that no setting names."""
    how = serving(settings)
    how = msgspec.structs.replace(how, http=msgspec.structs.replace(how.http, **http))
    sockets = listen(how)
    try:
        async with system.gateway:
            server = Server(system.app, system.gateway, system.context.heart, sockets, how)
            system.context.door = server
            ready = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve(ready.set, signals=False))
                await ready.wait()
                port = sockets[0].getsockname()[1]
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                    try:
                        yield Running(system, server, port, client)
                    finally:
                        server.stop(drain=0)
    finally:
        for sock in sockets:
            sock.close()


@pytest.fixture
def settings() -> Config:
    """What `gateway` is built from; a test module may override it."""
    return config()


@pytest.fixture
def system(settings) -> System:
    """Built before the loop runs, since building reads files."""
    return assemble(settings, {})


@pytest.fixture
async def gateway(system, settings):
    """A gateway that serves."""
    async with running(system, settings) as served:
        yield served
