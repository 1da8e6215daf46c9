"""A configuration that changes while the gateway runs: real processes, real files, real signals."""

import fcntl
import json
import os
import signal
import termios
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from penstock.config import Config, Listen, StoreConfig, TargetConfig
from penstock.reloading import changes, without_restart
from tests.clients.gateway import NOBODY, PATIENCE, Gateway, wait_for
from tests.telemetry.receivers import hook

WATCHING = {"watch": 0.1}
UNWATCHED = {"watch": 0}


def route(model="demo-echo"):
    return [{"provider": "demo", "model": model}]


SLOW = "demo-long?tokens_per_second=40&first_token_delay=0"


class Reloadable(Gateway):
    """A gateway whose file can be written anew."""

    def write(self, **settings) -> None:
        listen = {"port": 0, "drain": 0.2, **settings.pop("listen", {})}
        store = {"path": str(self._settings.parent / "data")}
        self._settings.write_text(json.dumps({"listen": listen, "store": store, **settings}))

    def hang_up(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def wait_logged(self, event: str, **fields) -> None:
        """Lines are written by a thread, after what they tell of."""
        wait_for(lambda: any(line | fields == line for line in self.log(event)))

    def reload(self, **headers) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/admin/reload", headers=headers, timeout=PATIENCE)

    def ask(self, model: str, **headers) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "echo this"}]}
        return httpx.post(f"{self.api}/chat/completions", json=body, headers=headers, timeout=PATIENCE)


BASE = {"models": {"old": route(), "slow": route(SLOW)}, "reload": UNWATCHED}


@contextmanager
def running(folder: Path, settings: dict, **how):
    gateway = Reloadable(folder, settings)
    try:
        gateway.start(**how)
        yield gateway
        gateway.stop()
        assert [line for line in gateway.log() if line["event"].endswith("_crashed")] == []
    finally:
        gateway.kill()


def preset(gateway, name: str) -> str:
    body = {"content": "the plan and the plot"}
    answer = httpx.post(f"{gateway.api}/presets/{name}", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return "".join(
        json.loads(line[5:]).get("delta", "")
        for line in answer.text.splitlines()
        if line.startswith("data:") and '"text"' in line
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("shared"), BASE) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared):
    """A gateway with the same settings at the start of each test."""
    shared.write(**BASE)
    shared.hang_up()
    wait_for(lambda: shared.ask("old").status_code == 200)
    reloaded = shared.reload(authorization="Bearer the key of mine")
    assert reloaded.json()["needs_restart"] == []
    return shared


@pytest.fixture(scope="module")
def watching(tmp_path_factory):
    """A gateway that looks at its files, which are reached by way of two links."""
    folder = tmp_path_factory.mktemp("watching")
    settings = {"models": {"one": route()}, "reload": WATCHING}
    with running(folder, settings) as gateway:
        yield gateway


def follow(gateway, stream: str) -> str:
    """Read a stream as it comes; return its text once it is complete."""
    text, ended = "", ""
    with httpx.stream("GET", f"{gateway.api}/streams/{stream}/events", timeout=PATIENCE) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                record = json.loads(line.removeprefix("data: "))
                text += record["delta"] if record.get("type") == "text" else ""
                ended = record.get("status", ended)
    assert ended == "completed"
    return text


def begin(gateway, model="slow") -> str:
    headers = {"prefer": "respond-async"}
    body = {"request": {"model": model, "messages": [{"role": "user", "content": "go"}]}}
    started = httpx.post(f"{gateway.api}/streams", json=body, headers=headers, timeout=PATIENCE)
    return started.json()["stream"]


def test_a_reload_brings_new_models_and_takes_old_ones_and_leaves_what_streams(gateway):
    stream = begin(gateway)
    gateway.write(models={"new": route()}, reload=UNWATCHED)
    done = gateway.reload()
    assert done.json() == {"object": "reload", "changed": ["models.old", "models.slow", "models.new"]} | {
        "needs_restart": []
    }
    assert gateway.ask("new").status_code == 200
    gone = gateway.ask("old")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    listed = {one["id"] for one in gateway.get("/v1/models")["data"]}
    assert "new" in listed
    assert not {"old", "slow"} & listed
    assert gateway.get(f"/v1/streams/{stream}")["status"] == "open"
    httpx.post(f"{gateway.api}/streams/{stream}/cancel", timeout=PATIENCE)
    gateway.wait_logged("config_reloaded", cause="request", changed=done.json()["changed"])


def test_streams_with_readers_are_whole_across_signals(gateway):
    fast = route("demo-long?tokens_per_second=800&first_token_delay=0")
    gateway.write(models={"m": fast}, reload=UNWATCHED)
    gateway.reload()
    streams = [begin(gateway, "m") for _ in range(5)]
    with ThreadPoolExecutor(5) as threads:
        read = [threads.submit(follow, gateway, one) for one in streams]
        number = 0
        while not all(one.done() for one in read):
            gateway.write(models={f"m{number}": route()}, reload=UNWATCHED)
            gateway.hang_up()
            wait_for(lambda n=number: gateway.ask(f"m{n}").status_code == 200)
            number += 1
        assert {one.result() for one in read} == {gateway.wait_closed(streams[0])["text"]}
    assert number > 1


def test_what_cannot_be_used_is_refused_in_the_words_of_check_config_and_the_old_one_stays(gateway):
    gateway.write(models={"new": [{"provider": "nobody", "model": "x"}]}, reload=UNWATCHED)
    refused = gateway.reload()
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (422, "bad_config")
    assert "models.new[0].provider: there is no provider 'nobody'; there are: demo" in error["message"]
    assert "penstock.yaml:1: " in error["message"]
    assert gateway.ask("old").status_code == 200
    gateway.wait_logged("config_refused", problems=error["message"].splitlines()[1:])


def test_text_that_is_no_yaml_is_refused(gateway):
    gateway._settings.write_text("models: [")
    assert gateway.reload().status_code == 422
    assert gateway.ask("old").status_code == 200


def test_a_changed_file_is_noticed_however_it_is_replaced(watching):
    file = watching._settings
    text = file.read_text()
    file.write_text(text.replace('"one"', '"two"'))  # in place
    wait_for(lambda: watching.ask("two").status_code == 200)
    beside = file.with_name("beside.yaml")  # as editors do
    beside.write_text(text.replace('"one"', '"three"'))
    beside.rename(file)
    wait_for(lambda: watching.ask("three").status_code == 200)
    # As volumes of Kubernetes change: the file is a link into a folder that is a link.
    for name in ("four", "five"):
        folder = file.with_name(name)
        folder.mkdir()
        (folder / file.name).write_text(text.replace('"one"', f'"{name}"'))
    mount, later = file.with_name("..data"), file.with_name("..later")
    mount.symlink_to("four")
    later.symlink_to("five")
    file.unlink()
    file.symlink_to(f"..data/{file.name}")
    wait_for(lambda: watching.ask("four").status_code == 200)
    later.rename(mount)
    wait_for(lambda: watching.ask("five").status_code == 200)


def test_a_changed_secret_is_the_key_from_then_on(watching):
    secret = watching._settings.with_name("secret")
    secret.write_text("the first secret\n")
    file = watching._settings.with_name("beside.yaml")
    settings = {**json.loads(watching._settings.read_text()), "models": {"m": route()}}
    file.write_text(json.dumps({**settings, "keys": {"app": f"${{file:{secret}}}"}}))
    file.rename(watching._settings)
    wait_for(lambda: watching.ask("m", authorization="Bearer the first secret").status_code == 200)
    secret.write_text("the second secret\n")
    wait_for(lambda: watching.ask("m", authorization="Bearer the second secret").status_code == 200)
    assert watching.ask("m", authorization="Bearer the first secret").status_code == 401
    assert "second secret" not in watching.log_file.read_text()


def test_reloading_is_for_administrators_where_there_are_keys(gateway):
    keys = {"app": "the key of app", "me": {"key": "the key of mine", "admin": True}}
    gateway.write(**BASE, keys=keys)
    assert gateway.reload().json()["changed"] == ["keys.app", "keys.me"]
    assert gateway.reload().status_code == 401
    assert gateway.reload(authorization="Bearer the key of app").status_code == 403
    assert gateway.reload(authorization="Bearer the key of mine").status_code == 200


def test_what_needs_a_restart_is_said_and_left_alone(gateway):
    gateway.write(listen={"ping": 9, "heartbeat": 7}, routes={"stream": {"at_rest": "host"}}, **BASE)
    done = gateway.reload().json()
    assert done["changed"] == ["listen.ping", "listen.heartbeat", "routes.stream.at_rest"]
    assert done["needs_restart"] == ["listen.ping", "routes.stream.at_rest"]
    gateway.wait_logged("restart_needed", settings=done["needs_restart"])


def test_origins_limits_and_presets_are_those_of_the_file(gateway):
    page = {"origin": "https://app.example"}
    assert gateway.ask("old", **page).status_code == 403
    gateway.write(
        models={"old": route()},
        listen={"allowed_origins": ["https://app.example"]},
        limits=[{"by": "all", "requests_per_minute": 2}],
        presets={"greet": {"model": "old", "content": "Hello {{content}}"}},
        filters={"polite": {"rules": [{"words": ["echo"], "mask": "[…]"}]}},
        default_model="old",
        reload=UNWATCHED,
    )
    assert gateway.reload().status_code == 200
    answer = gateway.ask("old", **page)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "[…]" in answer.json()["choices"][0]["message"]["content"]
    assert [one["name"] for one in gateway.get("/v1/presets")["data"]] == ["greet"]
    assert gateway.ask("old").status_code == 200
    assert gateway.ask("old").status_code == 429


def test_the_command_says_what_changed_and_what_is_wrong(gateway):
    def command():
        return gateway.command("reload", "--url", gateway.url)

    said = command()
    assert (said.returncode, said.stdout) == (0, "Nothing changed.\n")
    gateway.write(models={"new": route()}, listen={"drain": 9}, reload=UNWATCHED)
    said = command()
    assert said.stdout.splitlines() == [
        "listen.drain  (after a restart)",
        "models.old",
        "models.slow",
        "models.new",
    ]
    gateway._settings.write_text("modles: {}")
    said = command()
    assert said.returncode == 78
    assert "modles" in said.stderr


def test_a_terminal_that_is_closed_still_ends_the_gateway(tmp_path):
    main, terminal = os.openpty()
    gateway = Reloadable(tmp_path / "own", {"reload": UNWATCHED})
    try:
        gateway.start(stdin=terminal, start_new_session=True, preexec_fn=_take_terminal)
        os.close(terminal)
        gateway.hang_up()  # while it is there, this is an operator's
        wait_for(lambda: gateway.log("config_reloaded"))
        os.close(main)  # whoever leads the session is told by SIGHUP
        assert gateway._process.wait(PATIENCE) == 0
    finally:
        gateway.kill()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


# --- what changed ------------------------------------------------------------------------------------------


def test_changes_are_told_by_name_and_never_by_value():
    before = Config(keys={"a": "secret-of-a", "b": "secret-of-b"}, models={"m": [TargetConfig("demo", "x")]})
    after = Config(
        keys={"a": "another-secret", "c": "secret-of-c"},
        models={"m": [TargetConfig("demo", "y")]},
        listen=Listen(heartbeat=3.0),
        join=("*",),
    )
    assert list(changes(before, after)) == [
        "listen.heartbeat",
        "models.m",
        "join",
        "keys.a",
        "keys.b",
        "keys.c",
    ]
    assert list(changes(before, before)) == []


def test_another_order_of_models_is_a_change():
    one, other = [TargetConfig("demo", "x")], [TargetConfig("demo", "y")]
    assert list(
        changes(Config(models={"a*": one, "b*": other}), Config(models={"b*": other, "a*": one}))
    ) == ["models"]


def test_what_waits_for_a_restart_is_as_before_until_then():
    before = Config(listen=Listen(port=1), store=StoreConfig(path="/a", retention=5.0))
    after = Config(listen=Listen(port=2, heartbeat=3.0), store=StoreConfig(path="/b", retention=6.0))
    now = without_restart(before, after)
    assert (now.listen.port, now.listen.heartbeat) == (1, 3.0)
    assert (now.store.path, now.store.retention) == ("/a", 6.0)


def test_a_preset_filters_by_the_lists_that_its_filter_has_after_a_reload(gateway):
    presets = {"careful": {"model": "demo-echo", "filters": ["house"]}, "plain": {"model": "demo-echo"}}

    def with_words(*words):
        return {
            **BASE,
            "presets": presets,
            "filters": {"house": {"rules": [{"words": [*words]}], "models": []}},
        }

    gateway.write(**with_words("plan"))
    assert gateway.reload().status_code == 200
    assert preset(gateway, "careful") == "the *** and the plot"
    gateway.write(**with_words("plot"))
    assert gateway.reload().status_code == 200
    assert preset(gateway, "careful") == "the plan and the ***"
    assert preset(gateway, "plain") == "the plan and the plot"
    presets["careful"]["filters"] = []
    gateway.write(**with_words("plot"))
    assert gateway.reload().status_code == 200
    assert preset(gateway, "careful") == "the plan and the plot"


def test_a_target_that_is_taken_away_alerts_nobody_any_more_and_leaves_no_series(tmp_path):
    with hook() as web:
        settings = {
            "providers": {"gone": {"base_url": f"http://{NOBODY}/v1", "api_key": "k" * 20}},
            "models": {"old": [{"provider": "gone", "model": "m", "tries": 1}]},
            "alerts": {
                "send": {"ops": f"json://127.0.0.1:{web.server_port}/hook"},
                "rules": {"breaker": {"when": "breaker_open", "after": 0}},
            },
            "reload": UNWATCHED,
        }

        def title() -> str:
            return web.got[-1][1]["title"].partition(": ")[2] if web.got else ""

        def scraped() -> str:
            return httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text

        with running(tmp_path, settings) as gateway:
            for _ in range(5):
                assert gateway.ask("old").status_code == 502
            wait_for(lambda: title() == "breaker", "no alert")
            assert 'penstock_breaker_state{target="gone/m"} ' in scraped()
            (opened,) = gateway.log("breaker_opened")
            assert opened["target"] == "gone/m"
            gateway.write(**{**settings, "providers": {}, "models": {"new": route()}})
            assert gateway.reload().status_code == 200
            wait_for(lambda: title() == "breaker is over", "no recovery")
            assert gateway.ask("new").status_code == 200
            assert "gone" not in scraped()
            assert 'model="new"' in scraped()
            assert '"other"' not in scraped()
