"""The container image, built and run for real where buildah can build: on a local base, without a registry.

A runtime is played by `unshare` and `chroot`: the image's user, environment and command, process 1 of a
process namespace of its own, and a root file system that cannot be written.
"""

import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.process import PATIENCE, free_port
from tests.packages.conftest import copy_tracked
from tests.server.sse import parse

BASE = os.environ.get("PENSTOCK_TEST_BASE", "")
UID = 10001
KEY = "a-key-for-the-container"

pytestmark = [
    pytest.mark.skipif(
        not (BASE and shutil.which("buildah") and os.geteuid() == 0),
        reason="needs root, buildah and PENSTOCK_TEST_BASE, a local image (tests/deploy/make-base-image)",
    ),
    pytest.mark.timeout(600),
]


def buildah(*arguments: str | Path) -> str:
    command = ["buildah", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=500).stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The configuration of an image that was built as people build it."""
    source, name = tmp_path_factory.mktemp("source"), "penstock-test"
    copy_tracked(source)
    command = ["deploy/build-container", "--isolation", "chroot", "--build-arg", f"BASE={BASE}"]
    environ = {**os.environ, "BUILDER": "buildah"}
    subprocess.run([*command, "--tag", name], cwd=source, env=environ, check=True, timeout=500)
    yield json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
    buildah("rmi", name)


@pytest.fixture(scope="module")
def root(image):
    """The image's files."""
    container = buildah("from", "penstock-test")
    yield Path(buildah("mount", container))
    buildah("rm", container)


@contextmanager
def running(image, root, data, **environ):
    """Process 1 of a container; yields the process around it."""
    data.mkdir()
    os.chown(data, UID, UID)
    variables = [*image["Env"], *(f"{name}={value}" for name, value in environ.items())]
    user = image["User"]
    program = ["/usr/bin/env", "-i", *variables, *image["Entrypoint"], *image["Cmd"]]
    script = (
        f'mount --bind "{root}" "{root}" && mount --bind "{data}" "{root}/data"'
        f' && mount -o remount,ro,bind "{root}" && exec chroot --userspec={user} "{root}" "$@"'
    )
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_image_says_how_it_is_run(image):
    assert image["User"] == f"{UID}:{UID}"
    assert image["Entrypoint"] == ["penstock"]
    assert image["Cmd"] == ["serve"]
    assert "8080/tcp" in image["ExposedPorts"]
    assert "/data" in image["Volumes"]
    assert image["StopSignal"] == "SIGTERM"
    assert image["Healthcheck"]["Test"][0] == "CMD"
    assert image["Labels"]["org.opencontainers.image.version"] not in ("", "0")


def test_image_has_nothing_to_build_with(root):
    assert not {"gcc", "make", "git"} & {path.name for path in (root / "usr/bin").iterdir()}
    assert not [path.name for path in (root / "opt/penstock/bin").iterdir() if path.name.startswith("pip")]
    assert not (root / "build").exists()


def test_container_without_a_key_says_so_and_stops(image, root, tmp_path):
    with running(image, root, tmp_path / "data") as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 78
    assert "PENSTOCK_KEY" in said


def test_container_streams_is_healthy_and_stops(image, root, tmp_path):
    port = free_port()
    environ = {"PENSTOCK_KEY": KEY, "PENSTOCK_PORT": port}
    with running(image, root, tmp_path / "data", **environ) as process:
        greeting = "".join(iter(process.stdout.readline, "Ctrl-C stops it.\n"))
        assert f":{port}/" in greeting
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.get(f"http://127.0.0.1:{port}/stream?content=Hello", headers=headers, timeout=30)
        assert parse(answer.content)[-1].name == "done"
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401
        variables = [*image["Env"], f"PENSTOCK_PORT={port}"]
        probe = [
            "chroot",
            f"--userspec={image['User']}",
            root,
            "env",
            "-i",
            *variables,
            *image["Healthcheck"]["Test"][1:],
        ]
        assert subprocess.run(probe, check=False, timeout=30).returncode == 0
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert subprocess.run(probe, check=False, timeout=30, stderr=subprocess.DEVNULL).returncode != 0
