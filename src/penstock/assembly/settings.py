"""The configuration as the settings of the parts: nothing here is built, or read from a file."""

import msgspec

from penstock.config import Config, PresetConfig, ProviderConfig, RouteConfig, TargetConfig, tls_settings
from penstock.gateway.gateway import GatewaySettings
from penstock.gateway.health import HealthSettings
from penstock.gateway.presets import Parameters, Preset, Variable
from penstock.gateway.publications import PublicationSettings
from penstock.gateway.rescue import RetrySettings
from penstock.gateway.router import Routing
from penstock.gateway.run import RunSettings
from penstock.server.addresses import OWN
from penstock.server.context import RouteSettings, ServerSettings
from penstock.server.guard import GuardSettings
from penstock.server.http import HttpSettings
from penstock.server.proxies import parse_network
from penstock.server.serving import ServingSettings
from penstock.telemetry.logs import LogSettings
from penstock.types.calls import on_disconnect


def gateway_settings(config: Config) -> GatewaySettings:
    """Return the gateway's part of ``config``."""
    return GatewaySettings(
        retention=config.store.retention,
        max_open_streams=config.store.max_open_streams,
        join=config.join,
        run=RunSettings(
            max_stream_bytes=config.store.max_stream_bytes,
            retry=RetrySettings(**msgspec.structs.asdict(config.retry)),
        ),
        health=HealthSettings(**msgspec.structs.asdict(config.breaker)),
        publications=publication_settings(config),
    )


def server_settings(config: Config) -> ServerSettings:
    """Return what the routes have of ``config``."""
    return ServerSettings(
        max_body_bytes=config.listen.max_body_bytes,
        body_timeout=config.listen.body_timeout,
        body_rate=config.listen.body_rate,
        commit_after=config.listen.commit_after,
        heartbeat=config.listen.heartbeat,
        last_words=config.listen.last_words,
        send_timeout=config.listen.send_timeout,
        max_rids=config.listen.max_rids,
        max_append_bytes=config.publications.max_append_bytes,
        long_poll=config.publications.long_poll,
        trusted_proxies=tuple(map(parse_network, config.listen.trusted_proxies)),
        access_log=config.log.access,
        routes={name: route_settings(config, name) for name in config.routes.__struct_fields__},
    )


def route_settings(config: Config, name: str) -> RouteSettings:
    """Return what ``config`` says of the route ``name``."""
    route: RouteConfig = getattr(config.routes, name)
    at_rest = route.at_rest
    if not at_rest:
        at_rest = "memory" if config.store.kind == "memory" else config.store.durability
    return RouteSettings(
        on_disconnect=on_disconnect(route.on_disconnect) if route.on_disconnect else None,
        retention=route.retention,
        at_rest=at_rest,
    )


def publication_settings(config: Config) -> PublicationSettings:
    """Return how large publications become, how many there are and how long they are kept."""
    wanted, store = config.publications, config.store
    at_rest = wanted.at_rest or ("memory" if store.kind == "memory" else store.durability)
    room = min(store.max_bytes, store.max_memory_bytes) if at_rest == "memory" else store.max_bytes
    return PublicationSettings(
        max_stream_bytes=wanted.max_stream_bytes,
        max_bytes=wanted.max_bytes or room // 2,
        max_streams=wanted.max_streams,
        max_streams_per_owner=wanted.max_streams_per_owner,
        retention=wanted.retention,
        at_rest=at_rest,
    )


def guard_settings(config: Config) -> GuardSettings:
    """Return which hosts and origins are let in, and whether anybody is."""
    listen = config.listen
    return GuardSettings((*listen.allowed_hosts, listen.host), listen.allowed_origins, config.anonymous)


def build_preset(name: str, said: PresetConfig, routing: Routing) -> Preset:
    """Return the preset ``name``, with the model that is the default now where it names none."""
    variables = {one: Variable(**msgspec.structs.asdict(about)) for one, about in said.variables.items()}
    return Preset(
        name,
        said.model or routing.default_model,
        said.system,
        said.content,
        said.description,
        variables,
        Parameters(**msgspec.structs.asdict(said.parameters)),
    )


def serving(config: Config) -> ServingSettings:
    """Return the server's part of ``config``."""
    listen = config.listen
    http = HttpSettings(
        head_timeout=listen.head_timeout,
        idle_timeout=listen.idle_timeout,
        max_connections=listen.max_connections,
        max_connections_per_address=listen.max_connections_per_address,
        uncounted=(*OWN, *map(parse_network, listen.trusted_proxies)),
        max_websockets=listen.max_websockets,
        ping=listen.ping,
        send_timeout=listen.send_timeout,
    )
    tls = tls_settings(listen.tls) if listen.tls is not None else None
    return ServingSettings(host=listen.host, port=listen.port, drain=listen.drain, http=http, tls=tls)


def log_settings(config: Config) -> LogSettings:
    """Return the log's part of ``config``."""
    return LogSettings(config.log.format, config.log.level)


def upstream_config(config: Config, url: str, api_key: str, model: str) -> Config:
    """Return ``config`` with one more OpenAI-compatible server at ``url``, which answers ``model``.

    Without a model, every name that nobody else answers goes there.
    """
    name = "upstream"
    providers = {name: ProviderConfig(base_url=url, api_key=api_key), **config.providers}
    changed = msgspec.structs.replace(config, providers=providers)
    if not model:
        return changed
    models = {model: [TargetConfig(name, model)], **config.models}
    return msgspec.structs.replace(changed, models=models, default_model=config.default_model or model)
