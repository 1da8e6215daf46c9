"""``python -m penstock.cli``: the command line."""

from penstock.cli.program import main

main()
