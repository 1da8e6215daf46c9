"""The gateways here are other processes; this one only reads, and much: it does so without debugging."""

import asyncio

import pytest


@pytest.fixture(autouse=True)
async def _without_debugging():
    asyncio.get_running_loop().set_debug(False)
