"""The files of the page as they are served: from memory, with the right types, and nothing else."""

import pytest

from penstock.server.files import MEDIA_TYPES, read_pages

PAGES = read_pages()


@pytest.mark.parametrize("name", sorted(PAGES))
async def test_each_part_is_served_as_what_it_is(gateway, name):
    response = await gateway.client.get(f"/ui/{name}")
    assert response.status_code == 200
    assert response.content == PAGES[name].body
    assert response.headers["content-type"] == MEDIA_TYPES[name.rpartition(".")[2]]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"


async def test_the_page_allows_scripts_and_styles_of_our_own_only(gateway):
    response = await gateway.client.get("/")
    assert response.content == PAGES["index.html"].body
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in str(policy)


@pytest.mark.parametrize("path", ["/", "/ui/main.js"])
@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_copy_that_is_still_good_is_not_sent_again(gateway, path, form):
    first = await gateway.client.get(path)
    headers = {"if-none-match": form.format(first.headers["etag"].removeprefix("W/"))}
    again = await gateway.client.get(path, headers=headers)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_another_copy_is_replaced(gateway):
    response = await gateway.client.get("/ui/main.js", headers={"if-none-match": '"0123"'})
    assert response.status_code == 200
    assert response.content == PAGES["main.js"].body


async def test_head_says_what_get_would(gateway):
    got, headed = await gateway.client.get("/ui/main.js"), await gateway.client.head("/ui/main.js")
    assert headed.content == b""
    assert headed.headers["content-length"] == got.headers["content-length"]
    assert headed.headers["etag"] == got.headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "/ui/",
        "/ui/nothing.js",
        "/ui/vendor",
        "/ui/vendor/",
        "/ui/../ui.py",
        "/ui/..%2fui.py",
        "/ui/%2e%2e/%2e%2e/config.py",
        "/ui//etc/passwd",
        "/ui/main.js/",
        "/ui/main.js%00",
        "/ui/vendor%5cmarked.esm.js",
    ],
)
async def test_a_path_that_is_no_part_is_nothing(gateway, path):
    response = await gateway.client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_a_part_cannot_be_written(gateway):
    assert (await gateway.client.post("/ui/main.js", content=b"x")).status_code == 405
