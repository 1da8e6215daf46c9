"""Our own end of TLS: real handshakes, certificates that change, clients that have to show theirs."""

import asyncio
import ssl
import subprocess

import httpx
import pytest
import trustme
from structlog.testing import capture_logs

from penstock.config import check
from penstock.server.encryption import BadTls, Certificate, TlsSettings, load
from tests.server.conftest import config
from tests.server.raw import connected, request
from tests.server.sse import collect


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(autouse=True)
def _refusals(loop_errors):
    """In debug mode asyncio logs each handshake that failed, as some here are meant to."""
    yield
    loop_errors[:] = [error for error in loop_errors if "transport creation" not in error]


class Files:
    """PEM files of a server, as the operator has them."""

    def __init__(self, folder, authority):
        self.certificate, self.key, self.ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
        self.authority = authority
        authority.cert_pem.write_to_path(self.ca)
        self.renew()

    def renew(self, *, only=None):
        """Write a new certificate; return its serial number's place in what a client sees."""
        made = self.authority.issue_cert("localhost", "127.0.0.1")
        if only != "key":
            self.certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        if only != "certificate":
            made.private_key_pem.write_to_path(self.key)
        return made

    def settings(self, **more):
        return TlsSettings(str(self.certificate), str(self.key), **more)


@pytest.fixture
def files(tmp_path, authority):
    return Files(tmp_path, authority)


def trusting(authority, certificate=None):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


async def seen(port, context):
    """Return the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    protocol = writer.get_extra_info("ssl_object").version()
    writer.close()
    await writer.wait_closed()
    return shown, protocol


class TestServing:
    @pytest.fixture
    def tls(self, files):
        return {"certificate": str(files.certificate), "key": str(files.key)}

    @pytest.fixture
    def settings(self, tls):
        return config(listen={"port": 0, "drain": 0, "tls": tls})

    async def test_an_answer_streams_over_tls(self, gateway, authority):
        async with httpx.AsyncClient(
            base_url=f"https://localhost:{gateway.port}", verify=trusting(authority)
        ) as client:
            body = {"request": {"model": "demo-echo", "messages": [{"role": "user", "content": "hello"}]}}
            answer = await collect(client, "POST", "/v1/streams", json=body)
        assert "".join(event.data.get("delta", "") for event in answer.events) == "hello"

    async def test_curl_takes_it_and_a_version_of_before_is_refused(self, gateway, files):
        url = f"https://localhost:{gateway.port}/healthz"

        def curl(*words):
            command = ["curl", "-sS", "--cacert", str(files.ca), *words, url]
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

        assert (await asyncio.to_thread(curl)).returncode == 0
        assert (await asyncio.to_thread(curl, "--tls-max", "1.1")).returncode == 35

    async def test_plain_http_is_told_to_use_https_and_hurts_nobody(self, gateway, authority):
        answer = await gateway.client.get("/healthz")
        assert (answer.status_code, answer.http_version) == (400, "HTTP/1.1")
        assert "https://" in answer.text
        large = await gateway.client.post("/v1/streams", content=b"x" * 1_000_000)
        assert large.status_code == 400
        shown, protocol = await seen(gateway.port, trusting(authority))
        assert shown
        assert protocol == "TLSv1.3"

    async def test_whoever_speaks_plain_http_on_and_on_is_told_once_and_closed_in_time(
        self, gateway, monkeypatch
    ):
        async with connected(gateway.port) as client:
            client.send(b"GET / HTTP/1.1\r\n")
            await client.until(b"http://.")
            client.send(request("GET", "/healthz") * 1000)
            client.half_close()
            assert client.got == await client.to_end()
        assert client.statuses == [400]

    async def test_what_is_neither_is_closed_without_a_word_of_http(self, gateway):
        async with connected(gateway.port) as client:
            client.send(b"\x00\x01 neither of both\r\n\r\n")
            assert b"HTTP" not in await client.to_end()

    async def test_the_page_that_describes_the_api_says_https(self, gateway, authority):
        async with httpx.AsyncClient(verify=trusting(authority)) as client:
            described = await client.get(f"https://localhost:{gateway.port}/openapi.json")
        assert described.json()["servers"][0]["url"] == f"https://localhost:{gateway.port}"


class TestClients:
    @pytest.fixture
    def settings(self, files):
        tls = {"certificate": str(files.certificate), "key": str(files.key), "client_ca": str(files.ca)}
        return config(listen={"port": 0, "drain": 0, "tls": tls})

    async def test_who_shows_a_certificate_comes_in_and_nobody_else(self, gateway, authority):
        url = f"https://localhost:{gateway.port}/healthz"
        mine = trusting(authority, authority.issue_cert("a-client"))
        async with httpx.AsyncClient(verify=mine) as client:
            assert (await client.get(url)).status_code == 200
        other = trusting(authority, trustme.CA().issue_cert("a-client"))
        for context in (trusting(authority), other):
            async with httpx.AsyncClient(verify=context) as client:
                with pytest.raises(httpx.TransportError):
                    await client.get(url)


async def test_a_renewed_certificate_is_for_new_connections(files, authority):
    certificate = await asyncio.to_thread(Certificate, files.settings())

    async def answer(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=certificate.context)
    port = server.sockets[0].getsockname()[1]
    context = trusting(authority)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    before, _ = await seen(port, context)
    assert not await asyncio.to_thread(certificate.reload)
    files.renew()
    assert await asyncio.to_thread(certificate.reload)
    after, _ = await seen(port, context)
    assert after != before
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_an_authority_that_is_taken_away_opens_nothing_any_more(tmp_path, authority):
    files, new = Files(tmp_path, authority), trustme.CA()
    certificate = await asyncio.to_thread(Certificate, files.settings(client_ca=str(files.ca)))
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.read(1))
        writer.write(b"x")
        writer.close()

    async def comes_in(context, name="localhost"):
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=name
            )
            writer.write(b"x")
            got = await reader.read(1)
            writer.close()
            await writer.wait_closed()
        except OSError:
            return False
        return got == b"x"

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=certificate.context)
    port = server.sockets[0].getsockname()[1]
    old_client = trusting(authority, authority.issue_cert("old-client"))
    new_client = trusting(authority, new.issue_cert("new-client"))
    assert (await comes_in(old_client), await comes_in(new_client)) == (True, False)
    new.cert_pem.write_to_path(files.ca)
    assert await asyncio.to_thread(certificate.reload)
    for name in ("localhost", "127.0.0.1"):  # an address sends no name
        assert (await comes_in(old_client, name), await comes_in(new_client, name)) == (False, True)
    server.close()


@pytest.mark.parametrize("half", ["certificate", "key"])
def test_half_a_renewal_changes_nothing_until_the_other_half_is_there(files, half):
    certificate = Certificate(files.settings())
    kept = files.key.read_bytes(), files.certificate.read_bytes()
    made = files.renew(only=half)
    with capture_logs() as logs:
        assert not certificate.reload()
        assert not certificate.reload()
    assert [line["event"] for line in logs] == ["certificate_not_reloaded"] * 2
    assert str(files.key) in logs[0]["reason"]
    assert kept != (files.key.read_bytes(), files.certificate.read_bytes())
    files.certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    made.private_key_pem.write_to_path(files.key)
    assert certificate.reload()


@pytest.mark.parametrize(
    ("spoil", "part", "said"),
    [
        (lambda files: files.certificate.unlink(), "certificate", "cannot be read"),
        (lambda files: files.key.unlink(), "key", "cannot be read"),
        (lambda files: files.certificate.write_text("none"), "certificate", "PEM"),
        (lambda files: files.renew(only="key"), "key", "is not the key of"),
    ],
)
def test_files_that_cannot_be_used_are_named(files, spoil, part, said):
    spoil(files)
    with pytest.raises(BadTls, match=said) as refused:
        load(files.settings())
    assert refused.value.part == part
    tls = {"certificate": str(files.certificate), "key": str(files.key)}
    (problem,) = check(config(listen={"port": 0, "tls": tls}))
    assert problem.where == f"listen.tls.{part}"


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(files):
    locked = files.key.with_name("locked.key")
    command = ["openssl", "pkey", "-in", str(files.key), "-aes256", "-passout", "pass:x", "-out", str(locked)]
    subprocess.run(command, check=True, timeout=30)
    with pytest.raises(BadTls, match="password"):
        load(TlsSettings(str(files.certificate), str(locked)))


def test_an_authority_that_is_none_is_named(files):
    bad = files.ca.with_name("bad.crt")
    bad.write_text("none")
    with pytest.raises(BadTls, match="client_ca"):
        load(files.settings(client_ca=str(bad)))
