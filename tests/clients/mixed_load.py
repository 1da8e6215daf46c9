"""Mixed load with faults, for the dashboard: models that stream, fall over, break off and come late."""

import asyncio
import random

import httpx

ADMIN, APP = "the-key-of-an-administrator", "the-key-of-an-application"

SETTINGS = {
    "providers": {"far": {"kind": "scripted"}, "near": {"kind": "scripted"}},
    "models": {
        "writer": {
            "balance": "least_busy",
            "targets": [
                {"provider": "far", "model": "demo-long"},
                {"provider": "near", "model": "demo-long"},
            ],
        },
        "chat": [{"provider": "near", "model": "demo"}],
        "thinker": [{"provider": "far", "model": "demo-reasoning"}],
        "rescued": [{"provider": "far", "model": "demo-cut"}, {"provider": "near", "model": "demo"}],
        "falls-back": [
            {"provider": "far", "model": "demo-overloaded"},
            {"provider": "near", "model": "demo"},
        ],
        "unlucky": [{"provider": "far", "model": "demo-error"}],
    },
    "keys": {
        "ops": {"key": ADMIN, "admin": True},
        "web-app": {"key": APP, "team": "shop"},
        "batch": {"key": "the-key-of-a-batch", "team": "research"},
    },
    "prices": {"*/*": {"input": 3, "output": 12}},
    "limits": [{"by": "key", "concurrent": 40, "queue": 20, "wait": 20}],
    "budgets": [{"by": "team", "usd": 50, "period": "day"}],
    "filters": {"addresses": {"rules": [{"name": "addresses", "detect": ["email"], "action": "mask"}]}},
    "retry": {"base_delay": 0.1},
    "demo": False,
    "default_model": "chat",
}
_WEIGHTS = {"writer": 3, "chat": 5, "thinker": 2, "rescued": 3, "falls-back": 2, "unlucky": 1}
_KEYS = [APP, APP, APP, "the-key-of-a-batch"]


async def load(url: str, seconds: float, clients: int = 12) -> int:
    """Ask for ``seconds``, ``clients`` side by side, some of whom leave early or read twice; return how many
    generations were started."""
    chance = random.Random(1)
    started = 0
    until = asyncio.get_running_loop().time() + seconds

    async def one(http: httpx.AsyncClient) -> None:
        nonlocal started
        model = chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
        body = {"model": model, "messages": [{"role": "user", "content": "Write to joe@example.com"}]}
        headers = {"authorization": f"Bearer {chance.choice(_KEYS)}"}
        leaves = chance.random() < 0.1
        async with http.stream("POST", "/v1/streams", json={"request": body}, headers=headers) as response:
            if response.status_code != 200:
                return
            started += 1
            count = 0
            async for _ in response.aiter_bytes():
                count += 1
                if (leaves and count > 20) or asyncio.get_running_loop().time() > until:
                    return

    async def client(http: httpx.AsyncClient) -> None:
        await asyncio.sleep(chance.random() * min(2.0, seconds / 4))
        while asyncio.get_running_loop().time() < until:
            await one(http)
            await asyncio.sleep(chance.random())

    limits = httpx.Limits(max_connections=clients + 4)
    async with (
        httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(clients):
            group.create_task(client(http))
    return started
