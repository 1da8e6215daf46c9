"""What is measured, and how each is started: the gateway, nginx, a relay of raw bytes, and nothing at all.

A system is a function that returns a running one; the harness knows no more than its URL and its process.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench.load import CLIENTS
from bench.processes import BenchError, Process, answers, require_free

ROOT = Path(__file__).resolve().parent.parent
CHAT = "/v1/chat/completions"
ENV = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
MODELS = ("bench", "bench-idle")
PROVIDERS = {
    "messages": ("", {"kind": "anthropic"}),
    "responses": ("/v1", {"kind": "openai", "api": "responses"}),
    "gemini": ("/v1beta", {"kind": "gemini"}),
    "ollama": ("", {"kind": "ollama"}),
}
"""The upstream in other dialects than OpenAI's chat: what follows its address, and what it is. The models
have the same names."""


@dataclass(frozen=True)
class Lab:
    """Where everything runs: folder, ports, cores, and the gateway's options."""

    folder: Path
    base_port: int
    system_core: int
    load_core: int
    store: str
    route: str  # whose dialect the load speaks to the gateway
    rate: float
    certificate: Path  # of the TLS upstream, with its key; signed by `authority`
    authority: Path
    overlay: dict[str, Any]

    @property
    def upstream_port(self) -> int:
        return self.base_port

    @property
    def upstream_tls_port(self) -> int:
        return self.base_port + 1

    @property
    def system_port(self) -> int:
        return self.base_port + 2

    def start(self, name: str, argv: list[str], *, core: int, talks: bool = False) -> Process:
        return Process(name, argv, core=core, log=self.folder / f"{name}.log", env=ENV, talks=talks)


@dataclass(frozen=True)
class Running:
    """A system that takes requests."""

    url: str
    process: Process | None  # None where there is nothing between load and upstream
    client: str = "chat"  # whose dialect the load speaks
    model: str = "bench"


@contextlib.contextmanager
def start_upstream(lab: Lab) -> Iterator[Process]:
    require_free(lab.upstream_port)
    require_free(lab.upstream_tls_port)
    argv = [sys.executable, "-m", "bench.paced_upstream", "--port", str(lab.upstream_port)]
    argv += ["--tls-port", str(lab.upstream_tls_port), "--tls-cert", str(lab.certificate)]
    argv += ["--tls-key", str(lab.certificate), "--rate", str(lab.rate), "--idle-seconds", "120"]
    with lab.start("upstream", argv, core=lab.load_core, talks=True) as process:
        if process.read_line() != "ready":
            raise BenchError("the upstream did not get ready")
        yield process


@contextlib.contextmanager
def start_direct(lab: Lab, *, tls: bool) -> Iterator[Running]:
    yield Running(f"http://127.0.0.1:{lab.upstream_port}{CHAT}", None)


@contextlib.contextmanager
def start_nginx(lab: Lab, *, tls: bool) -> Iterator[Running]:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        raise BenchError("nginx is not installed (Debian: apt-get install nginx-light)")
    require_free(lab.system_port)
    config = (ROOT / "bench" / "nginx.conf.in").read_text()
    for name, value in {
        "DIR": lab.folder,
        "PORT": lab.system_port,
        "UPSTREAM_PORT": lab.upstream_port,
        "UPSTREAM_TLS_PORT": lab.upstream_tls_port,
    }.items():
        config = config.replace(f"@{name}@", str(value))
    path = lab.folder / "nginx.conf"
    path.write_text(config)
    argv = [binary, "-p", str(lab.folder), "-c", str(path), "-e", str(lab.folder / "nginx.log")]
    with lab.start("nginx", argv, core=lab.system_core) as process:
        process.wait_ready(lambda: answers(lab.system_port, "/v1/models"))
        yield Running(f"http://127.0.0.1:{lab.system_port}{'/tls' if tls else ''}{CHAT}", process)


@contextlib.contextmanager
def start_standin(lab: Lab, *, tls: bool) -> Iterator[Running]:
    if tls:
        raise BenchError("the stand-in speaks no TLS")
    require_free(lab.system_port)
    argv = [sys.executable, "-m", "bench.standin", "--port", str(lab.system_port)]
    argv += ["--upstream-port", str(lab.upstream_port)]
    with lab.start("standin", argv, core=lab.system_core) as process:
        process.wait_ready(lambda: answers(lab.system_port, "/v1/models"))
        yield Running(f"http://127.0.0.1:{lab.system_port}{CHAT}", process)


def gateway_config(lab: Lab, folder: Path, *, tls: bool) -> dict[str, Any]:
    """Return the gateway's configuration: defaults, but for the addresses and the store asked for."""
    port = lab.upstream_tls_port if tls else lab.upstream_port
    provider = {
        "kind": "openai",
        "base_url": f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1",
        "api_key": "bench",
    }
    if tls:
        provider["ca_file"] = str(lab.authority)
    others = {
        name: {**said, "base_url": f"http://127.0.0.1:{lab.upstream_port}{at}", "api_key": "bench"}
        for name, (at, said) in PROVIDERS.items()
    }
    store = {"kind": lab.store}
    if lab.store == "embedded":
        store |= {"path": str(folder), "durability": "process"}
    return {
        "listen": {"host": "127.0.0.1", "port": lab.system_port},
        "store": store,
        "providers": {"bench": provider, **others},
        "models": {
            **{model: [{"provider": "bench", "model": model}] for model in MODELS},
            **{name: [{"provider": name, "model": "bench"}] for name in others},
        },
    }


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid upon it, table by table."""
    result = dict(base)
    for key, value in over.items():
        mine = result.get(key)
        result[key] = merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return result


@contextlib.contextmanager
def start_penstock(
    lab: Lab, *, tls: bool, overlay: bool = False, client: str = "", model: str = "bench"
) -> Iterator[Running]:
    require_free(lab.system_port)
    folder = lab.folder / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    config = gateway_config(lab, folder, tls=tls)
    path = lab.folder / "penstock.yaml"
    path.write_text(yaml.safe_dump(merged(config, lab.overlay) if overlay else config))
    argv = [sys.executable, "-m", "penstock", "serve", "--config", str(path)]
    client = client or lab.route
    with lab.start("penstock", argv, core=lab.system_core) as process:
        process.wait_ready(lambda: answers(lab.system_port, "/readyz"))
        path_of = CLIENTS[client].path.format(model=model)
        yield Running(f"http://127.0.0.1:{lab.system_port}{path_of}", process, client, model)


@contextlib.contextmanager
def start_overlay(lab: Lab, *, tls: bool) -> Iterator[Running]:
    with start_penstock(lab, tls=tls, overlay=True) as running:
        yield running


SYSTEMS: dict[str, Callable[..., AbstractContextManager[Running]]] = {
    "direct": start_direct,
    "nginx": start_nginx,
    "penstock": start_penstock,
    "overlay": start_overlay,
    "standin": start_standin,
    **{f"to-{client}": partial(start_penstock, client=client) for client in CLIENTS if client != "chat"},
    **{f"from-{model}": partial(start_penstock, model=model) for model in PROVIDERS},
}
"""``to-…``: the gateway with a client of another dialect; ``from-…``: with a provider of another."""
