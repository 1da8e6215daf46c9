"""What is planted is found wherever it is logged, and the test in whose time it was fails by its name."""

import structlog
from structlog.testing import capture_logs

from tests.planted import SEARCH, WORDS

pytest_plugins = ["pytester"]

LEAKY = """
import structlog
from structlog.testing import capture_logs

def test_that_prints():
    structlog.get_logger().info("request", key="planted-key")

def test_that_captures():
    with capture_logs():
        structlog.get_logger().info("request", key="planted-key")

def test_that_is_good():
    structlog.get_logger().info("request", key="config.app")
"""


def test_the_test_that_leaks_fails(pytester, request, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))
    pytester.makeconftest((request.config.rootpath / "tests" / "conftest.py").read_text())
    pytester.makepyfile(test_leaky=LEAKY)
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:xdist")
    done.assert_outcomes(passed=3, errors=2)
    done.stdout.fnmatch_lines(
        ["*what is planted was logged*", "ERROR*test_that_prints*", "ERROR*test_that_captures*"]
    )


def test_what_is_captured_is_searched():
    SEARCH.take()
    for word in WORDS:
        with capture_logs():
            structlog.get_logger().info("request", said={"a": [f"<{word}>"]})
        assert SEARCH.take()
