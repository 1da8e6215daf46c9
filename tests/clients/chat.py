"""The chat page as a person uses it: what they type and press, and what they then read."""

import json
from pathlib import Path

from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.clients.browser import until

ENGLISH = {"language": "en"}
LAST = ".answer >> nth=-1"


def prefer(context: BrowserContext, **preferences) -> None:
    """Let every new page of ``context`` begin with these choices, unless it has some already."""
    value = json.dumps({**ENGLISH, **preferences})
    key = json.dumps("penstock.preferences")
    keep = f"localStorage.getItem({key}) ?? localStorage.setItem({key}, {json.dumps(value)})"
    context.add_init_script(f"if (location.protocol === 'http:') {keep}")


def without_sockets(context: BrowserContext) -> BrowserContext:
    """Let the pages of ``context`` read by HTTP alone: there is no WebSocket. Return it."""
    context.add_init_script("delete globalThis.WebSocket")
    return context


class Chat:
    """One tab with the page in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self, where: str = "") -> "Chat":
        """Load the page, at ``where`` behind the ``#``."""
        self.page.goto(f"{self.url}/{where}")
        return self.ready()

    def ready(self) -> "Chat":
        until(self.page, "document.documentElement.dataset.ready")
        return self

    def reload(self) -> "Chat":
        self.page.reload()
        return self.ready()

    def tab(self, where: str | None = None) -> "Chat":
        """Open another tab of the same browser, at the same place."""
        place = self.page.evaluate("location.hash") if where is None else where
        return Chat(self.page.context.new_page(), self.url).open(place)

    # --- what a person does ---------------------------------------------------------------------

    def choose(self, model: str) -> None:
        """Take ``model`` in the picker, listed or not."""
        self.page.click("#model-button")
        self.page.fill("#model-dialog input", model)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#model-name")).to_have_text(model)

    def ask(self, text: str, model: str = "") -> Locator:
        """Send ``text``; return its answer."""
        if model and self.page.text_content("#model-name") != model:
            self.choose(model)
        count = self.page.locator(".question").count()
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")
        expect(self.page.locator(".question")).to_have_count(count + 1)
        return self.answer

    def press(self, name: str, within: Locator | None = None) -> None:
        (within or self.page).get_by_role("button", name=name, exact=True).click()

    def menu(self, button: Locator, item: str) -> None:
        button.click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    # --- what a person sees ---------------------------------------------------------------------

    @property
    def answer(self) -> Locator:
        return self.page.locator(LAST)

    @property
    def text(self) -> str:
        return "\n".join(self.page.locator(f"{LAST} >> .parts > .markdown").all_text_contents()).strip()

    @property
    def figures(self) -> str:
        return self.page.text_content(f"{LAST} >> .figures") or ""

    @property
    def ending(self) -> Locator:
        return self.page.locator(f"{LAST} >> .ending")

    @property
    def questions(self) -> list[str]:
        return self.page.locator(".question .said").all_text_contents()

    @property
    def texts(self) -> list[str]:
        return [one.strip() for one in self.page.locator(".answer .parts").all_text_contents()]

    @property
    def titles(self) -> list[str]:
        return self.page.locator("#conversations a").all_text_contents()

    def shown(self, length: int = 1) -> None:
        """Wait until so many characters of the answer are there."""
        script = "document.querySelector('.answer:last-child .markdown')?.textContent.length >= %d"
        until(self.page, script % length)

    def ended(self) -> None:
        expect(self.answer).to_have_attribute("aria-busy", "false")

    @property
    def stream(self) -> str:
        """The id of the last answer's stream, as the page's own menu names it."""
        read = """async () => {
          const request = indexedDB.open("penstock");
          const database = await new Promise((done) => (request.onsuccess = () => done(request.result)));
          const all = database.transaction("nodes").objectStore("nodes").getAll();
          const nodes = await new Promise((done) => (all.onsuccess = () => done(all.result)));
          database.close();
          const answers = nodes.filter((node) => node.role === "answer").sort((a, b) => a.at - b.at);
          return answers.at(-1).answer.stream;
        }"""
        return self.page.evaluate(read)

    def fits(self) -> bool:
        """Whether nothing makes the page wider than its window."""
        page, thread = "document.documentElement", "document.querySelector('#scroller')"
        wide = f"{page}.scrollWidth > innerWidth || {thread}.scrollWidth > {thread}.clientWidth"
        return not self.page.evaluate(wide)


def violations(page: Page, axe: Path) -> list[str]:
    """What axe finds wrong with the page as it is now."""
    page.evaluate(axe.read_text() + "\n0")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{rule['id']}: {node['target']} {' '.join(node['failureSummary'].split())}"
        for rule in found
        for node in rule["nodes"]
    ]
