"""The code of the guide does what it says."""

import ast
import asyncio
import inspect
from pathlib import Path

import pytest

from tests.test_docs import FENCE

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "python.md"
BLOCKS = [found[3] for found in FENCE.finditer(PAGE.read_text()) if found[2] == "python"]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_the_code_of_the_guide_runs(gateway, capsys, block):
    code = block.replace('"http://localhost:8080"', f'"{gateway.url}"')
    code = code.replace("Client() as", f'Client("{gateway.url}") as')
    compiled = compile(code, "python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {}
    ran = eval(compiled, names)
    if inspect.iscoroutine(ran):
        asyncio.run(ran)
    assert capsys.readouterr().out.strip()
    assert names["answer"].closed.status == "completed"
