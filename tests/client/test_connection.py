"""Addresses, names of streams, and waiting; following itself is tested through the commands."""

import pytest

from penstock.client.addresses import Address, address_of, target_of
from penstock.client.connection import Connection, Lost, Received, Refused, backoff

ID = "s_0001KAHX0ZQJ8M3V5T7R9B1C2D4F"
HERE = Address("http://localhost:8080", "key")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("localhost:8080", "http://localhost:8080"),
        ("https://gateway.example/", "https://gateway.example"),
        ("https://gateway.example/v1", "https://gateway.example"),
        ("https://gateway.example/v1/", "https://gateway.example"),
        ("https://app.example/llm/v1", "https://app.example/llm"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_address_is_read_as_people_write_it(url, base):
    assert address_of(url).base == base


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://x:port", "http://[", "http://x:0"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="write it as"):
        address_of(url)


@pytest.mark.parametrize(
    ("text", "base", "cursor"),
    [
        (ID, HERE.base, ""),
        (f"chatcmpl-{ID[2:]}", HERE.base, ""),
        (f"{ID}~0000000000000003", HERE.base, f"{ID}~0000000000000003"),
        (f"http://localhost:8080/v1/streams/{ID}", HERE.base, ""),
        (f"https://x.example/llm/v1/streams/{ID}/events?after=3", "https://x.example/llm", "3"),
        (f"https://x.example/v1/chat/completions/chatcmpl-{ID[2:]}", "https://x.example", ""),
        (f"https://x.example/#/s/{ID}", "https://x.example", ""),
    ],
)
def test_a_stream_is_named_in_many_ways(text, base, cursor):
    target = target_of(text, HERE)
    assert (target.stream, target.address.base, target.cursor) == (ID, base, cursor)


def test_a_key_is_not_given_to_the_gateway_of_a_link():
    assert target_of(f"http://localhost:8080/v1/streams/{ID}", HERE).address.key == "key"
    elsewhere = target_of(f"http://elsewhere/v1/streams/{ID}?token=t", HERE).address
    assert (elsewhere.key, elsewhere.token) == ("", "t")


def test_waits_grow_to_a_bound_and_differ():
    waits = [[backoff(attempt) for _ in range(50)] for attempt in (1, 4, 1_000)]
    assert max(waits[0]) <= 0.5 < max(waits[1]) <= 4 < max(waits[2]) <= 8
    assert len(set(waits[2])) > 1


async def test_a_cut_is_told_and_nothing_is_missing_or_double(gateway, relay):
    relay.cuts = [300, 500, 41]
    body = {"request": {"model": "paced", "messages": [{"role": "user", "content": "a b c d e f g h"}]}}
    async with Connection(address_of(relay.url), wait=lambda attempt: 0.0) as connection:
        happenings = [one async for one in connection.start(body, "a-key-for-the-cut")]
        events = [one for one in happenings if isinstance(one, Received) and one.event != "stream"]
        stream = events[0].cursor.partition("~")[0]
        whole = [one async for one in connection.follow(stream) if isinstance(one, Received)]
    assert events == whole[1:]
    assert sum(isinstance(one, Lost) for one in happenings) == 3


async def test_a_refusal_says_what_the_gateway_said(gateway):
    async with Connection(address_of(gateway.url)) as connection:
        with pytest.raises(Refused) as caught:
            await connection.snapshot(ID)
    assert (caught.value.status, caught.value.code) == (404, "stream_not_found")
    assert not caught.value.passes
