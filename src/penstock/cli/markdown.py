"""Markdown as lines of a terminal: `Painter` renders one block, or plain words, at the terminal's width.

Everything is left-aligned and without frames or backgrounds, so that what is selected with the mouse is
what was said. Links show their address: in an answer, what a link says need not be where it leads.
"""

from typing import Any, ClassVar, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.padding import Padding
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from penstock.cli.blocks import Block
from penstock.cli.output import harmless

THEME: Final = Theme(
    {
        "markdown.code": "bold cyan",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold dim",
        "markdown.link_url": "underline",
        "markdown.hr": "dim",
        "markdown.block_quote": "italic",
        "markdown.item.bullet": "dim",
        "markdown.item.number": "dim",
    }
)


class _Heading(Heading):
    """A heading at the left, without a frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _CodeBlock(CodeBlock):
    """Code in the terminal's own colours, indented, without a background."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        syntax = Syntax(
            str(self.text).rstrip(),
            self.lexer_name,
            theme="ansi_dark",
            background_color="default",
            word_wrap=True,
        )
        yield Padding(syntax, (0, 0, 0, 2))


class _Table(TableElement):
    """A table whose long words are folded: the library would cut them off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _Markdown(Markdown):
    """Markdown whose line ends are kept: models write verses and addresses without the two blanks."""

    def __init__(self, text: str) -> None:
        super().__init__(text, hyperlinks=False)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }


class Painter:
    """Renders for one terminal."""

    def __init__(self, console: Console) -> None:
        """``console`` says how wide it is and what colours it has."""
        self.console = console

    def markdown(self, block: Block) -> list[str]:
        """Return a block of Markdown as lines, with a blank one before it where it wants one."""
        lines = self._lines(_Markdown(harmless(block.text)))
        while lines and not Text.from_ansi(lines[0]).plain.strip():
            lines.pop(0)
        while lines and not Text.from_ansi(lines[-1]).plain.strip():
            lines.pop()
        return ["", *lines] if block.apart and lines else lines

    def words(self, text: str, style: str | Style = "") -> list[str]:
        """Return plain words as lines, wrapped."""
        return self._lines(Text(harmless(text), style=style))

    def _lines(self, renderable: Any) -> list[str]:
        with self.console.capture() as capture:
            self.console.print(renderable, end="")
        return [line.rstrip(" ") for line in capture.get().rstrip("\n").split("\n")]
