"""The description of the API in a browser, at `/docs`."""

import pytest
from playwright.sync_api import expect


@pytest.fixture
def docs(page, gateway):
    """The page, once it shows what there is."""
    page.goto(f"{gateway.url}/docs")
    page.locator(".opblock").first.wait_for()
    return page


def test_every_operation_is_shown(docs, gateway):
    described = gateway.get("/openapi.json")["paths"]
    operations = [item[method] for item in described.values() for method in item if method != "parameters"]
    assert docs.locator(".opblock").count() == len(operations)


def test_a_stream_can_be_tried(docs, gateway):
    operation = docs.locator("#operations-Simple-simple_stream")
    operation.locator(".opblock-summary-control").click()
    operation.locator('[data-param-name="model"] input').fill("demo-echo")
    operation.locator('[data-param-name="content"] input').fill("one two three")
    operation.locator(".execute").click()
    answer = operation.locator(".live-responses-table tbody")
    expect(answer.locator(".response-col_status").first).to_have_text("200")
    expect(answer).to_contain_text("event: done")


def test_a_body_that_is_offered_is_taken(docs):
    operation = docs.locator("#operations-Streams-create_stream")
    operation.locator(".opblock-summary-control").click()
    operation.locator(".execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text('"status":"completed"')


def test_nothing_is_asked_of_anybody_else(context, gateway):
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{gateway.url}/docs")
    page.locator(".opblock").first.wait_for()
    assert [url for url in asked if not url.startswith((gateway.url, "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_theme(new_context, gateway, scheme):
    page = new_context(color_scheme=scheme, viewport={"width": 390, "height": 844}).new_page()
    page.goto(f"{gateway.url}/docs")
    page.locator(".opblock").first.wait_for()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(28, 32, 34)"}[scheme]
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_description_that_cannot_be_had_is_said(context, gateway, complaints):
    page = context.new_page()
    page.route("**/openapi.json", lambda route: route.fulfill(status=502))
    page.goto(f"{gateway.url}/docs")
    expect(page.locator("#api")).to_contain_text("cannot be shown: openapi.json is answered 502")
    assert len(complaints.settle()) == 1
    complaints.clear()
