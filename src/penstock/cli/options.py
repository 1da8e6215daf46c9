"""Options that several commands have, each said once."""

from typing import Annotated, Final

import typer

from penstock.cli.completion import complete_model

PATIENCE: Final = 120.0

Url = Annotated[
    str, typer.Option(metavar="URL", envvar="PENSTOCK_URL", help="Where the gateway is.", show_default=True)
]
Key = Annotated[
    str,
    typer.Option(
        metavar="KEY",
        envvar="PENSTOCK_KEY",
        show_default=False,
        help="The gateway's API key. The variable is the better place: other users see options.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar="PENSTOCK_MODEL",
        show_default=False,
        autocompletion=complete_model,
        help="The model; the first that the gateway lists when none is named.",
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0.0, help="How long a gateway that was lost is looked for.", show_default=True
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
