"""Pictures of the chat page in all its states: `make pictures`, then look at them.

Each state at two sizes and in both themes, under build/pictures; and docs/chat.png for the README.
Nothing is compared: a person looks.
"""

import asyncio
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.clients.browser import browsing, until
from tests.clients.chat import Chat, prefer
from tests.clients.gateway import Gateway, serving
from tests.clients.mixed_load import ADMIN, load
from tests.clients.mixed_load import SETTINGS as MIXED

ROOT = Path(__file__).parent.parent.parent
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
LOCALES = {"chinese": ("zh", "zh-CN")}

Scene = Callable[[Chat, Gateway], None]


def empty(chat: Chat, _: Gateway) -> None:
    expect(chat.page.locator("#model-name")).not_to_be_empty()


def streaming(chat: Chat, _: Gateway) -> None:
    chat.ask("Give me a short tour of this gateway", "demo")
    chat.shown(500)


def markdown(chat: Chat, _: Gateway) -> None:
    chat.ask("Show me how to call you from code", "demo-quick")
    chat.ended()


def reasoning(chat: Chat, _: Gateway) -> None:
    chat.ask("Which way should the water go?", "demo-reasoning")
    chat.ended()
    chat.page.click(".reasoning summary")


def tools(chat: Chat, _: Gateway) -> None:
    chat.ask("What is the weather like in Paris and in Shanghai?", "demo-tools")
    chat.ended()


def failed(chat: Chat, _: Gateway) -> None:
    chat.ask("Tell me about water", "demo-error")
    chat.ended()


def limited(chat: Chat, _: Gateway) -> None:
    chat.ask("Tell me about water", "demo-rate-limited")
    chat.ended()


def refused(chat: Chat, _: Gateway) -> None:
    chat.ask("Tell me about water", "gpt-99")
    chat.ended()


def stopped(chat: Chat, _: Gateway) -> None:
    streaming(chat, _)
    chat.page.keyboard.press("Escape")
    chat.ended()


def cut(chat: Chat, _: Gateway) -> None:
    chat.page.click("#lab-toggle")
    streaming(chat, _)
    chat.page.click("#cut")
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    chat.page.locator(".waiting.trouble").wait_for()


def resumed(chat: Chat, _: Gateway) -> None:
    cut(chat, _)
    chat.page.locator(".waiting.trouble").wait_for(state="hidden")
    chat.shown(1_400)


def versions(chat: Chat, _: Gateway) -> None:
    chat.ask("hello", "demo-quick")
    chat.ended()
    chat.press("Answer again")
    expect(chat.answer).to_contain_text("2/2")
    chat.ended()


def editing(chat: Chat, _: Gateway) -> None:
    versions(chat, _)
    chat.page.locator(".question").hover()
    chat.press("Edit")


def picker(chat: Chat, _: Gateway) -> None:
    chat.page.click("#model-button")
    chat.page.locator("[role=option]").first.wait_for()


def presets(chat: Chat, _: Gateway) -> None:
    chat.page.click("#preset-button")
    chat.page.get_by_label("Creative").check()


def keys(chat: Chat, _: Gateway) -> None:
    chat.page.click("h1")
    chat.page.keyboard.press("?")


def menu(chat: Chat, _: Gateway) -> None:
    markdown(chat, _)
    chat.answer.get_by_role("button", name="More", exact=True).click()


def drawer(chat: Chat, _: Gateway) -> None:
    for text in ("Why does water hammer break pipes?", "Explain back pressure in two sentences", "你好"):
        chat.page.keyboard.press("Control+k")
        chat.page.locator(".question").wait_for(state="hidden")
        chat.ask(text, "demo-quick")
        chat.ended()
    if chat.page.locator("#drawer-toggle").is_visible():
        chat.page.click("#drawer-toggle")


def chinese(chat: Chat, _: Gateway) -> None:
    chat.ask("介绍一下你自己", "demo-quick")
    chat.ended()


def misbehaving(chat: Chat, _: Gateway) -> None:
    chat.page.click("#lab-toggle")
    chat.page.click("#misbehave")


def wide(chat: Chat, _: Gateway) -> None:
    row = " | ".join(f"a rather wide column {number}" for number in range(9))
    table = f"| {row} |\n|{' --- |' * 9}\n| {row} |"
    code = "```js\n" + "const wide = " + " + ".join(f"part{number}" for number in range(40)) + ";\n```"
    chat.ask(f"{table}\n\n{code}\n\n{'W' * 300}", "demo-echo")
    chat.ended()


def key(chat: Chat, _: Gateway) -> None:
    chat.page.locator("#key").wait_for()


def unreachable(chat: Chat, gateway: Gateway) -> None:
    streaming(chat, gateway)
    gateway.kill()
    until(chat.page, "document.querySelector('.waiting')?.textContent.includes('attempt 3')")


def interrupted(chat: Chat, gateway: Gateway) -> None:
    streaming(chat, gateway)
    gateway.restart()
    chat.ended()


SCENES: list[Scene] = [
    empty, streaming, markdown, reasoning, tools, failed, limited, refused, stopped, cut, resumed, versions,
    editing, picker, presets, keys, menu, drawer, chinese, misbehaving, wide, key, unreachable, interrupted,
]  # fmt: skip


ALONE: list[Scene] = [key, unreachable, interrupted]
"""These kill their gateway, or want another one."""


def settings(*, keys: bool = False) -> dict:
    more = {"keys": {"somebody": "a-key-that-nobody-types"}} if keys else {}
    providers = {"quick": {"kind": "scripted", "speed": 30}}
    quick = ("demo-reasoning", "demo-tools", "demo-echo")
    models = {name: [{"provider": "quick", "model": name}] for name in quick}
    models["demo-quick"] = [{"provider": "quick", "model": "demo"}]
    return {"providers": providers, "models": models, "default_model": "demo", **more}


def shoot(browser: Browser, gateway: Gateway, scene: Scene, folder: Path, size: str, theme: str) -> None:
    width, height = SIZES[size]
    language, locale = LOCALES.get(scene.__name__, ("en", "en-GB"))
    viewport = {"width": width, "height": height}
    context = browser.new_context(
        viewport=viewport, color_scheme=theme, locale=locale, has_touch=size == "phone"
    )
    prefer(context, language=language, model="demo")
    chat = Chat(context.new_page(), gateway.url).open()
    scene(chat, gateway)
    if not chat.fits():
        print(f"    {scene.__name__} is too wide at {width}")
    chat.page.wait_for_timeout(300)  # transitions
    chat.page.screenshot(path=folder / f"{scene.__name__}-{size}-{theme}.png")
    context.close()


def shoot_readme(browser: Browser, gateway: Gateway) -> None:
    """A conversation in mid-answer, whose connection was lost and taken up again."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    prefer(context, model="demo")
    chat = Chat(context.new_page(), gateway.url).open()
    for text in ("用三句话介绍流式网关", "Why does water hammer break pipes?", "Compare SSE and WebSocket"):
        chat.ask(text, "demo-quick")
        chat.ended()
        chat.page.keyboard.press("Control+k")
    chat.page.click("#lab-toggle")
    chat.ask("How do I call you from code?", "demo")
    chat.shown(150)
    chat.page.click("#cut")
    chat.page.locator(".waiting.trouble").wait_for()
    chat.page.click("#lab-toggle")
    chat.page.locator(".waiting.trouble").wait_for(state="hidden")
    chat.shown(425)
    chat.page.mouse.move(640, 20)
    picture = ROOT / "docs" / "chat.png"
    chat.page.screenshot(path=picture)
    print(f"{picture}: {picture.stat().st_size // 1000} kB")
    context.close()


def shoot_dashboard(browser: Browser, gateway: Gateway, folder: Path) -> None:
    """The dashboard and one stream's page, with load behind them; one of them for its guide."""
    working = threading.Thread(target=lambda: asyncio.run(load(gateway.url, 150)))
    working.start()
    put = f"sessionStorage.setItem('penstock.key', '{ADMIN}')"
    for size, (width, height) in SIZES.items():
        for theme in ("light", "dark"):
            language = "zh" if (size, theme) == ("phone", "dark") else "en"
            viewport = {"width": width, "height": height}
            context = browser.new_context(viewport=viewport, color_scheme=theme, locale="en-GB")
            prefer(context, language=language)
            context.add_init_script(f"if (location.protocol === 'http:') {put}")
            page = context.new_page()
            page.goto(f"{gateway.url}/dashboard")
            page.wait_for_timeout(60_000 if (size, theme) == ("desktop", "light") else 15_000)
            page.screenshot(path=folder / f"dashboard-{size}-{theme}.png", full_page=size == "phone")
            if (size, theme) == ("desktop", "light"):
                page.set_viewport_size({"width": 1280, "height": 1000})
                page.wait_for_timeout(1_500)
                page.screenshot(path=ROOT / "docs" / "dashboard.png")
            rescued = page.locator("#ended tr").filter(has_text="rescued").locator("a").first
            page.goto(f"{gateway.url}/dashboard{rescued.get_attribute('href')}")
            page.locator("canvas.cells").wait_for()
            page.wait_for_timeout(1_000)
            page.screenshot(path=folder / f"stream-{size}-{theme}.png", full_page=True)
            context.close()
    working.join()


def main(folder: Path, names: list[str]) -> None:
    """Shoot the scenes of these ``names``, or all, and the README's picture."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [scene for scene in SCENES if not names or scene.__name__ in names]
    takes = [(scene, size, theme) for scene in chosen for size in SIZES for theme in ("light", "dark")]
    with browsing() as browser, tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        shared = stack.enter_context(serving(Path(scratch) / "shared", settings()))
        if not names or "readme" in names:
            shoot_readme(browser, shared)
        if not names or "dashboard" in names:
            watched = stack.enter_context(serving(Path(scratch) / "watched", MIXED))
            shoot_dashboard(browser, watched, folder)
        for scene, size, theme in takes:
            name = f"{scene.__name__}-{size}-{theme}"
            print(name)
            if scene in ALONE:
                with serving(Path(scratch) / name, settings(keys=scene is key)) as gateway:
                    shoot(browser, gateway, scene, folder, size, theme)
            else:
                shoot(browser, shared, scene, folder, size, theme)


if __name__ == "__main__":
    main(ROOT / "build" / "pictures", sys.argv[1:])
