"""A gateway behind a network that breaks, for all tests of this folder; and the table of what they found.

PENSTOCK_CUTS=all makes every cut there is (`make torture`); else each reader on each route gets a sample.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.gateway import Gateway, serving
from tests.clients.torture.cuts import ALL
from tests.clients.torture.network import Network, networking
from tests.clients.torture.table import Row, printed

JS = Path(__file__).parents[1] / "js"
PORTS = 16 if ALL else 8
ROWS = pytest.StashKey[list[Row]]()


def pytest_configure(config):
    config.stash[ROWS] = []


@pytest.fixture
def rows(request) -> list[Row]:
    """Where a test puts what it measured."""
    return request.config.stash[ROWS]


def pytest_terminal_summary(terminalreporter, config):
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("streams cut to pieces")
        for line in printed(rows):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A network with a provider behind the gateway; it serves the folder of the JavaScript readers."""
    with networking(JS, PORTS) as network:
        yield network


@pytest.fixture(scope="session")
def torn(tmp_path_factory, network) -> Iterator[Gateway]:
    """The gateway that ``network`` leads to."""
    settings = {
        "providers": {"upstream": {"base_url": network.provider.url, "api_key": "unused"}},
        "models": {"torture": [{"provider": "upstream", "model": "torture"}]},
        "default_model": "torture",
        "listen": {"allowed_origins": network.secure_urls},
    }
    with serving(tmp_path_factory.mktemp("torn"), settings) as gateway:
        network.lead_to(gateway.url)
        yield gateway
