"""A gateway that is killed in mid-answer forgets nobody's usage: what ended and what did not is all there."""

import httpx

from tests.clients.gateway import Gateway, wait_for

SETTINGS = {
    "providers": {"demo": {"kind": "scripted", "speed": 0}, "slow": {"kind": "scripted", "speed": 1}},
    "models": {"slow": [{"provider": "slow", "model": "demo-long"}]},
    "keys": {"root": {"key": "an administrator's key", "admin": True}},
    "prices": {"*": {"input": 1, "output": 1}},
}
KEY = {"authorization": "Bearer an administrator's key"}


def start(gateway, model):
    body = {"request": {"model": model, "messages": [{"role": "user", "content": "hello"}]}}
    headers = {**KEY, "prefer": "respond-async"}
    return httpx.post(f"{gateway.url}/v1/streams", json=body, headers=headers).json()["stream"]


def stream(gateway, name):
    return httpx.get(f"{gateway.url}/v1/streams/{name}", headers=KEY).json()


def test_no_row_is_lost_with_the_process_nor_counted_twice(tmp_path):
    gateway = Gateway(tmp_path / "own", SETTINGS)
    try:
        gateway.start()
        whole = [start(gateway, "demo-echo") for _ in range(5)]
        for name in whole:
            wait_for(lambda name=name: stream(gateway, name)["status"] == "completed")
        cut = start(gateway, "slow")
        wait_for(lambda: len(stream(gateway, cut)["text"]) > 20)
        for _ in range(2):
            gateway.restart()
            url = f"{gateway.url}/v1/admin/usage"
            found = httpx.get(url, params={"by": "status"}, headers=KEY).json()["data"]
            assert {one["name"]: one["generations"] for one in found} == {"completed": 5, "interrupted": 1}
            (interrupted,) = [one for one in found if one["name"] == "interrupted"]
            assert interrupted["estimated"] == 1
            assert interrupted["output_tokens"] > 5
            assert interrupted["cost_usd"] > 0
    finally:
        gateway.kill()
