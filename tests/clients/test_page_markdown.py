"""What the chat page makes of an answer's Markdown: while it grows, at its end, and when it is hostile."""

import pytest
from playwright.sync_api import expect

from penstock.providers.script import load_texts
from tests.clients.browser import until

HOSTILE = """\
<script>window.pwned = 1</script>
<img src=x onerror="window.pwned = 2">
<svg onload="window.pwned = 3"><style>body{display:none}</style></svg>

[click](javascript:window.pwned=4) [data](data:text/html,<script>window.pwned=5</script>)
<a href="javascript:window.pwned=6" onclick="window.pwned=7">raw</a>
<iframe src="/"></iframe><object data="/"></object><embed src="/"><form action="/"><input name=x></form>
<div class="notice" style="position:fixed;inset:0" id="composer">over all</div>

![far](https://elsewhere.invalid/pixel.png) <img src="https://elsewhere.invalid/raw.png" alt="raw image">
[here](/stream?content=spend) [there](https://example.com/x)
"""

ELEMENTS = "Array.from(document.querySelectorAll('.answer .parts *'))"

TEXTS = {
    **load_texts(),
    "references": "See [one] and [two][2].\n\nMore text.\n\nAnd more.\n\n[one]: https://example.com/1\n"
    "[2]: https://example.com/2\n",
    "lists": "1. a\n   - b\n\n     c\n2. d\n\n   ```js\n   let x = 1;\n   ```\n\n3. e\n\n- [x] f\n- [ ] g\n",
    "ends": "Windows\r\nline ends\r\n\r\n- a\r\n- b\r\n\r\n```\r\ncode\r\n```\r\n\r\nend",
    "blocks": "A heading\n=========\n\ntext\n---\n\n***\n\n> quote\n> > inner\n\n"
    "<details><summary>s</summary>\n\nx\n\n</details>\n",
    "table": "| a | b |\n|---|:-:|\n| 1 | `x|y` |\n| 2 | **z** |\n\nafter",
    "fences": "````md\n```js\nx\n```\n````\n\n~~~\ny\n~~~\n\n    indented\n\nend `code` **b** *i* ~~s~~",
}

MENDED = [
    ("**bold", "**bold**"),
    ("**bold**", "**bold**"),
    ("a **", "a "),
    ("*it", "*it*"),
    ("2 * 3 * 4", "2 * 3 * 4"),
    ("* item", "* item"),
    ("~~gone", "~~gone~~"),
    ("`code", "`code`"),
    ("`a[0", "`a[0`"),
    ("see [the docs](https://exam", "see the docs"),
    ("see [the do", "see the do"),
    ("![a picture](https://e", "a picture"),
    ("text\n-", "text\n"),
    ("text\n==", "text\n"),
    ("text\n2.", "text\n"),
    ("text\n##", "text\n"),
    ("text\n- item", "text\n- item"),
    ("| a | b |", "| a | b |\n| --- | --- |"),
    ("| a | b |\n| --", "| a | b |\n| --- | --- |"),
    ("| a | b |\n| --- | --- |\n| 1", "| a | b |\n| --- | --- |\n| 1"),
    ("```js\nlet a = **b", "```js\nlet a = **b"),
    ("```js\nlet a\n``", "```js\nlet a\n"),
    ("a <sp", "a "),
    ("a < b", "a < b"),
    ("snake_case_name", "snake_case_name"),
]


@pytest.fixture(scope="module")
def modules(browser, gateway):
    """A page for tests that only use its modules."""
    page = browser.new_page()
    page.goto(gateway.url)
    yield page
    page.close()


def test_what_a_model_writes_can_do_nothing(chat):
    chat.ask(HOSTILE, "demo-echo")
    chat.ended()
    assert chat.page.evaluate("window.pwned") is None
    tags = set(chat.page.evaluate(f"{ELEMENTS}.map((element) => element.localName)"))
    assert not tags & {"script", "style", "svg", "iframe", "object", "embed", "form", "input", "img"}
    named = f"{ELEMENTS}.flatMap((element) => element.getAttributeNames())"
    assert not {
        name for name in chat.page.evaluate(named) if name.startswith("on") or name in ("style", "id")
    }
    links = chat.answer.locator("a[href]")
    targets = [link.get_attribute("href") for link in links.all()]
    assert targets == [
        "https://elsewhere.invalid/pixel.png",
        "https://elsewhere.invalid/raw.png",
        "https://example.com/x",
    ]
    assert "<script>window.pwned = 1</script>" in chat.text  # shown as it was written
    for link in links.all():
        assert link.get_attribute("target") == "_blank"
        assert "noopener" in link.get_attribute("rel")
    expect(chat.page.locator("#composer")).to_be_visible()


def test_a_conversation_s_title_and_question_are_text(chat):
    chat.ask("<img src=x onerror='window.pwned = 1'> **hello**", "demo-echo")
    chat.ended()
    assert chat.questions == ["<img src=x onerror='window.pwned = 1'> **hello**"]
    assert chat.page.evaluate("window.pwned") is None
    assert chat.page.locator("#conversations img").count() == 0


def test_code_is_coloured_labelled_and_can_be_copied(chat):
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.ask('```python\nimport os\n\nprint("<b>")\n```', "demo-echo")
    chat.ended()
    code = chat.answer.locator("figure.code")
    expect(code.locator(".language")).to_have_text("python")
    expect(code.locator(".hljs-keyword")).to_have_text("import")
    chat.press("Copy the code")
    until(chat.page, "navigator.clipboard.readText()")
    assert chat.page.evaluate("navigator.clipboard.readText()") == 'import os\n\nprint("<b>")'


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_text_that_grows_looks_in_the_end_like_one_that_came_whole(chat, name):
    script = """async ([text, step]) => {
      const { MarkdownView } = await import("/ui/markdown.js");
      const make = () => document.querySelector("#column").appendChild(document.createElement("div"));
      const grown = new MarkdownView(make());
      for (let end = step; end < text.length; end += step) grown.update(text.slice(0, end), true);
      grown.update(text, false);
      const whole = new MarkdownView(make());
      whole.update(text, false);
      return [grown.element.innerHTML, whole.element.innerHTML];
    }"""
    for step in (1, 7):
        grown, whole = chat.page.evaluate(script, [TEXTS[name], step])
        assert grown == whole


def test_a_long_answer_costs_no_more_at_its_end_than_at_its_beginning(chat):
    script = """async (text) => {
      const { MarkdownView } = await import("/ui/markdown.js");
      const view = new MarkdownView(document.querySelector("#column"));
      const drawn = [];
      for (let end = 100; end < text.length; end += 100) {
        const before = view.drawn;
        view.update(text.slice(0, end), true);
        drawn.push(view.drawn - before);
      }
      return Math.max(...drawn);
    }"""
    long = "\n\n".join([TEXTS["tour"], TEXTS["code"]] * 40)
    assert len(long) > 100_000
    assert chat.page.evaluate(script, long) <= 6


@pytest.mark.parametrize(("text", "mended"), MENDED)
def test_what_is_only_begun_is_completed_for_the_moment(modules, text, mended):
    script = '(text) => import("/ui/markdown.js").then(({ mend }) => mend(text))'
    assert modules.evaluate(script, text) == mended


def test_an_unfinished_table_and_an_open_fence_are_one_already(chat, upstream):
    chat.ask("| a | b |\n|---|---|\n| 1 | 2 |\n\n```js\n" + "let x = 1;\n" * 60 + "```", "paced")
    chat.answer.locator(".markdown table").wait_for()
    chat.answer.locator("figure.code").wait_for()
    assert chat.answer.get_attribute("aria-busy") == "true"
    chat.ended()
    assert chat.answer.locator("figure.code").count() == 1


def test_what_was_broken_off_keeps_its_looks(chat):
    script = """async (text) => {
      const { MarkdownView } = await import("/ui/markdown.js");
      const view = new MarkdownView(document.querySelector("#column"));
      view.update(text, true);
      view.update(text, false, true);
      return view.element.textContent.trim();
    }"""
    broken = "Hello\n\n1. **Nothing [shown](https://exam"
    assert chat.page.evaluate(script, broken).split() == ["Hello", "Nothing", "shown"]
