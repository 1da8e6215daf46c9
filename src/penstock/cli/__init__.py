"""The command line: ``penstock``. One module a command, and what commands share.

`program` holds the table of commands and loads the module of the one that was typed, so that
``penstock serve`` never waits for what only a chat needs. Errors become one or two lines and an exit
code there (`exits`); HTTP stands in `connection` alone.
"""

from penstock.cli.program import main

__all__ = ["main"]
